import { orAborted } from './abort.ts';

/**
 * Does work when it is its turn.
 *
 * @param signal ends the waiting
 * @returns what the work returns
 * @throws what it throws, or the signal's reason
 */
export type Turns = <T>(work: () => Promise<T>, signal?: AbortSignal) => Promise<T>;

/** Lets so many go on at once; the others wait, the first of them goes next. */
export function createTurns(most: number): Turns {
  const waiting = new Set<() => void>();
  let running = 0;

  async function wait(signal: AbortSignal | undefined): Promise<void> {
    let go = () => {};
    const turn = new Promise<void>((resolve) => {
      go = resolve;
    });
    waiting.add(go);
    try {
      await (signal === undefined ? turn : orAborted(turn, signal));
    } catch (error) {
      // Its turn may have come by then: another goes in its place.
      if (!waiting.delete(go)) end();
      throw error;
    }
  }

  function end(): void {
    const [next] = waiting;
    if (next === undefined) {
      running -= 1;
      return;
    }
    waiting.delete(next);
    next();
  }

  return async (work, signal) => {
    signal?.throwIfAborted();
    // Without a tick in between where there is no need to wait.
    if (running < most) running += 1;
    else await wait(signal);
    try {
      return await work();
    } finally {
      end();
    }
  };
}
