import { ConsulError } from '../consul/error.ts';
import type { Observation } from '../state/hold.ts';
import type { State } from '../state/state.ts';
import type { FaultLog } from '../telemetry/bounded.ts';
import { pauseAfter } from '../util/coded-error.ts';
import { sayFault } from './follow.ts';

interface Settler {
  /** Looks at what is held now, and again until nothing is. */
  settle(): void;
  /** What could not be confirmed of the upstream is of no matter any more. */
  forget(upstream: string): void;
  stop(): void;
}

interface SettleOptions {
  state: State;
  /**
   * Observes an upstream once more, and surely.
   *
   * @returns undefined when it is not followed any more
   * @throws ConsulError while it cannot be told
   */
  confirm: (upstream: string) => Promise<Observation | undefined>;
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

/** Between two looks at what is held, in ms. */
const interval = 1000;

/** Has held observations confirmed whose time has come, so that they are believed. */
export function createSettler({ state, confirm, log, now }: SettleOptions): Settler {
  const doubts = new Map<string, Doubt>();
  const confirming = new Set<string>();
  let timer: NodeJS.Timeout | undefined;

  async function settleOne(upstream: string): Promise<void> {
    const held = state.get(upstream)?.held;
    if (held === undefined || confirming.has(upstream)) return;
    confirming.add(upstream);
    try {
      const observation = await confirm(upstream);
      doubts.delete(upstream);
      if (observation !== undefined) state.confirm(upstream, held, observation, now());
    } catch (error) {
      doubt(upstream, error);
    }
    confirming.delete(upstream);
  }

  /** Said once: it may well last, as the rights of a token do. */
  function doubt(upstream: string, error: unknown): void {
    const message = String(error);
    const last = doubts.get(upstream);
    const failures = (last?.failures ?? 0) + 1;
    doubts.set(upstream, { message, failures, again: now() + pauseAfter(error, failures) });
    if (message === last?.message) return;
    if (error instanceof ConsulError) {
      log.error({ upstream, err: error }, `${upstream}: ${error.message}: its last peers stay`);
    } else {
      sayFault(log, 'error', upstream, error);
    }
  }

  function settle(): void {
    const due = state.due(now()).filter((name) => now() >= (doubts.get(name)?.again ?? 0));
    for (const upstream of due) settleOne(upstream);
    if (!state.isHolding) return;
    timer ??= setTimeout(() => {
      timer = undefined;
      settle();
    }, interval);
  }

  return {
    settle,
    forget: (upstream) => doubts.delete(upstream),
    stop: () => clearTimeout(timer),
  };
}
