import { sleep } from '../../util/backoff.ts';
import type { Valid } from '../query.ts';
import { type Listeners, tell } from './listeners.ts';
import { lookInterval, roundOf } from './rates.ts';

/** Looks at every service in turn, when one may have changed and it is not known which. */
export interface Sweep {
  /**
   * Begins, or begins again.
   *
   * @param isUnsure a server that answers may show the past
   */
  urge(isUnsure?: boolean): void;
}

interface SweepOptions {
  listeners: Listeners;
  /** The index of a service. @throws ConsulError */
  look: (service: string, isUnsure: boolean) => Promise<Valid>;
  failed: (error: unknown, service: string) => void;
  /** It is to go on, whatever was found. */
  isEndless: () => boolean;
  /** So many looks at once. */
  most: number;
  signal: AbortSignal;
}

/**
 * Compares the index of each service with that of what is known of it; those that
 * were changed last come first. It goes round twice: in the first round, a server
 * may answer that is behind the one that rang.
 */
export function createSweep({
  listeners,
  look,
  failed,
  isEndless,
  most,
  signal,
}: SweepOptions): Sweep {
  let left = 0;
  let workers = 0;
  let isUnsure = false;
  let round: string[] = [];

  async function lookAt(service: string): Promise<void> {
    const isSure = !isUnsure;
    try {
      const { index } = await look(service, isUnsure);
      for (const listener of listeners.at(service)) {
        const known = listener.waiting?.index;
        // An index of the leader alone fits none.
        if (known === undefined || index === undefined) tell(listener, { why: 'sweep' });
        else if (index.value !== known) {
          tell(listener, { why: 'sweep', isUnsure: !isSure || index.value < known });
        }
      }
    } catch (error) {
      if (!signal.aborted) failed(error, service);
    }
  }

  async function work(): Promise<void> {
    /** When the next look is due: a timer that is late must not make each round longer. */
    let due = performance.now();
    while (!signal.aborted && (left > 0 || isEndless())) {
      if (left <= 0 && !listeners.isWaiting) {
        await sleep(lookInterval, signal);
        continue;
      }
      if (round.length === 0) round = listeners.services();
      const service = round.pop();
      left -= 1;
      if (service !== undefined) await lookAt(service);
      const spacing = (roundOf(listeners.size) / Math.max(1, listeners.size)) * most;
      due = Math.max(due, performance.now() - spacing) + spacing;
      await sleep(Math.max(0, due - performance.now()), signal);
    }
    workers -= 1;
    if (workers === 0) isUnsure = false;
  }

  return {
    urge(mayShowPast = false) {
      const recent = listeners.recent();
      left = 2 * listeners.size + recent.length;
      isUnsure ||= mayShowPast;
      // The others go on where they are: it may ring again before a round is over.
      round.push(...recent);
      for (; workers < most; workers += 1) work();
    },
  };
}
