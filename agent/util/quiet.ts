/** How long a burst must rest, and how long it may last, in ms. */
export interface Settle {
  min: number;
  max: number;
}

/** Waits for the end of a burst of changes of each name. */
export interface Quiet {
  /** A change that may wait: until none has followed for `min`, and no longer than `max` in all. */
  soon(name: string, settle: Settle): void;
  /** A change that may not wait; what has waited goes with it. */
  atOnce(name: string): void;
  stop(): void;
}

/** @param tell hears of each name whose burst is over */
export function createQuiet(tell: (name: string) => void): Quiet {
  const waiting = new Map<string, { timer: NodeJS.Timeout; latest: number }>();

  function atOnce(name: string): void {
    clearTimeout(waiting.get(name)?.timer);
    waiting.delete(name);
    tell(name);
  }

  return {
    soon(name, { min, max }) {
      const last = waiting.get(name);
      const now = performance.now();
      const latest = last?.latest ?? now + max;
      clearTimeout(last?.timer);
      const timer = setTimeout(() => atOnce(name), Math.min(min, latest - now));
      waiting.set(name, { timer, latest });
    },
    atOnce,
    stop() {
      for (const { timer } of waiting.values()) clearTimeout(timer);
      waiting.clear();
    },
  };
}
