import { orAborted } from '../util/abort.ts';

/** Lets so many in at a time; the others wait, in order. */
export interface Gate {
  /** @throws the signal's reason */
  enter(signal: AbortSignal): Promise<void>;
  leave(): void;
}

export function createGate(most: number): Gate {
  let inside = 0;
  const waiting = new Set<() => void>();

  return {
    async enter(signal) {
      signal.throwIfAborted();
      if (inside < most) {
        inside += 1;
        return;
      }
      let open = () => {};
      const opened = new Promise<void>((resolve) => {
        open = resolve;
      });
      waiting.add(open);
      try {
        await orAborted(opened, signal);
      } catch (error) {
        // It may have been let in by then: another goes in its place.
        if (!waiting.delete(open)) this.leave();
        throw error;
      }
    },
    leave() {
      const [next] = waiting;
      if (next === undefined) {
        inside -= 1;
        return;
      }
      waiting.delete(next);
      next();
    },
  };
}
