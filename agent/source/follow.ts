import { type BlockingQueryOptions, repeatBlockingQuery } from '../consul/blocking-query.ts';
import { ConsulError } from '../consul/error.ts';
import type { FaultLog } from '../telemetry/bounded.ts';
import { reason } from '../telemetry/log.ts';
import { backoff, sleep } from '../util/backoff.ts';
import { brief } from '../util/text.ts';

interface FollowOptions<Content>
  extends Pick<BlockingQueryOptions<Content>, 'ask' | 'failed' | 'wait'> {
  /** The name of the upstream. */
  upstream: string;
  /** @returns whether it changed anything @throws ConsulError when it cannot be used */
  use: (content: Content) => boolean;
  log: FaultLog;
}

export interface Following<Content> {
  /** What is used when it is used again. */
  latest: Content | undefined;
  /** Uses the latest content once more, in some ms. */
  again(delay: number): void;
  stop(): void;
}

/**
 * Follows a blocking query. Nothing that is thrown goes further: a fault of ours
 * in one upstream is that one's alone, is said once, and tried again.
 */
export function follow<Content>(options: FollowOptions<Content>): Following<Content> {
  const { upstream, ask, use, failed, wait, log } = options;
  const abort = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  let faults = 0;

  function answered(content: Content): boolean {
    following.latest = content;
    try {
      const changed = use(content);
      if (faults > 0) log.info({ upstream }, `${upstream}: handled again`);
      faults = 0;
      return changed;
    } catch (error) {
      if (error instanceof ConsulError) failed(error);
      else following.again(fault(error));
      return false;
    }
  }

  /** @returns when to try again, in ms */
  function fault(error: unknown): number {
    faults += 1;
    sayFault(log, faults === 1 ? 'error' : 'debug', upstream, error);
    return backoff(faults, 1000, 30_000);
  }

  async function run(): Promise<void> {
    const { signal } = abort;
    while (!signal.aborted) {
      try {
        await repeatBlockingQuery({ ask, answered, failed, wait, signal });
      } catch (error) {
        await sleep(fault(error), signal);
      }
    }
  }

  const following: Following<Content> = {
    latest: undefined,
    again(delay) {
      timer ??= setTimeout(() => {
        timer = undefined;
        if (following.latest !== undefined) answered(following.latest);
      }, delay);
    },
    stop() {
      clearTimeout(timer);
      abort.abort();
    },
  };
  run();
  return following;
}

/** Says that it is not Consul that fails, but the agent. */
export function sayFault(
  log: FaultLog,
  level: 'error' | 'debug',
  upstream: string,
  error: unknown,
): void {
  const stack = error instanceof Error ? error.stack?.slice(0, 4096) : undefined;
  const fields = { upstream, err: error, stack };
  const why = brief(reason(error), 300);
  log[level](fields, `${upstream}: a fault of the agent: ${why}: its peers stay`);
}
