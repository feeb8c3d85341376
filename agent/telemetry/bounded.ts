type Say = (fields: { upstream: string; err?: unknown; left_out?: number }, line: string) => void;

/** Takes what there is to say of one upstream. */
export type FaultLog = Record<'debug' | 'info' | 'warn' | 'error', Say>;

/** So many lines may follow one another. */
const burst = 5;
/** From then on, in ms for each. */
const interval = 20_000;

/** So many quotas may be kept; those that are full again say nothing. */
const most = 1000;

interface Quota {
  lines: number;
  filledAt: number;
  leftOut: number;
}

/**
 * A log for faults: of one upstream it writes a few lines a minute, however
 * often something fails. What is beyond them is of the level debug, and counted
 * in the next line that is written.
 *
 * @param now in ms, that never goes back
 */
export function boundedLog(log: FaultLog, now: () => number = () => performance.now()): FaultLog {
  const quotas = new Map<string, Quota>();

  function quotaOf(upstream: string): Quota {
    const time = now();
    if (quotas.size > most) dropFull(time);
    const last = quotas.get(upstream) ?? { lines: burst, filledAt: time, leftOut: 0 };
    const lines = Math.min(burst, last.lines + (time - last.filledAt) / interval);
    const quota = { ...last, lines, filledAt: time };
    quotas.set(upstream, quota);
    return quota;
  }

  function dropFull(time: number): void {
    for (const [upstream, { filledAt, leftOut }] of quotas) {
      if (leftOut === 0 && time - filledAt >= burst * interval) quotas.delete(upstream);
    }
  }

  function bounded(level: 'info' | 'warn' | 'error'): Say {
    return (fields, line) => {
      const quota = quotaOf(fields.upstream);
      if (quota.lines < 1) {
        quota.leftOut += 1;
        log.debug(fields, line);
        return;
      }
      log[level](quota.leftOut === 0 ? fields : { ...fields, left_out: quota.leftOut }, line);
      quota.lines -= 1;
      quota.leftOut = 0;
    };
  }

  return {
    debug: (fields, line) => log.debug(fields, line),
    info: bounded('info'),
    warn: bounded('warn'),
    error: bounded('error'),
  };
}
