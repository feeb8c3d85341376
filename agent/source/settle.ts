import { asConsulError } from '../consul/error.ts';
import type { State } from '../state/state.ts';
import type { FaultLog } from '../telemetry/bounded.ts';
import { backoff } from '../util/backoff.ts';

export interface Settler {
  /** Looks at what is held; does nothing while it is still at it. */
  settle(): Promise<void>;
  /** What could not be confirmed of the upstream is of no matter any more. */
  forget(upstream: string): void;
}

export interface SettleOptions {
  state: State;
  /**
   * Asks once more about a held observation.
   *
   * @returns whether it is true; false: something else has been observed
   * @throws ConsulError while it cannot be told
   */
  confirm: (upstream: string) => Promise<boolean>;
  log: FaultLog;
  /** In ms. */
  now: () => number;
}

/** A held observation that could not be confirmed. */
interface Doubt {
  message: string;
  failures: number;
  /** When to ask again, in ms. */
  again: number;
}

/** Believes held observations whose time has come, once they are confirmed. */
export function createSettler({ state, confirm, log, now }: SettleOptions): Settler {
  const doubts = new Map<string, Doubt>();
  let settling = false;

  async function settleOne(upstream: string): Promise<void> {
    try {
      const isTrue = await confirm(upstream);
      doubts.delete(upstream);
      if (isTrue) state.believe(upstream, now());
    } catch (error) {
      doubt(upstream, error);
    }
  }

  /** Said once: it may well last, as the rights of a token do. */
  function doubt(upstream: string, error: unknown): void {
    const { message } = asConsulError(error, upstream);
    const last = doubts.get(upstream);
    const failures = (last?.failures ?? 0) + 1;
    doubts.set(upstream, { message, failures, again: now() + backoff(failures, 1000, 30_000) });
    if (message === last?.message) return;
    log.error({ upstream, err: error }, `${upstream}: ${message}: its last peers stay`);
  }

  return {
    async settle() {
      if (settling) return;
      settling = true;
      const due = state.due(now()).filter((name) => now() >= (doubts.get(name)?.again ?? 0));
      await Promise.all(due.map(settleOne));
      settling = false;
    },
    forget: (upstream) => doubts.delete(upstream),
  };
}
