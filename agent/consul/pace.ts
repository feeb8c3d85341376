/** How often a watch may ask when answers keep coming. */
export interface Pace {
  /** @returns how long to wait before asking again, in ms, after an answer */
  after(answer: 'change' | 'no change'): number;
}

/** As many changes may follow one another without any delay. */
const burst = 50;
/** Changes per second in the long run. */
const rate = 50;
/** What an answer without a change costs, in changes: it is no use to hurry after one. */
const idleCost = 5;

/**
 * A token bucket (Consul's docs on blocking queries ask for a rate limit). The
 * first changes after a quiet time are never delayed; an endpoint that always
 * answers at once is asked ten times a second.
 *
 * @param now in ms, that never goes back
 */
export function createPace(now: () => number = () => performance.now()): Pace {
  let tokens = burst;
  let filledAt = now();
  return {
    after(answer) {
      const time = now();
      tokens = Math.min(burst, tokens + ((time - filledAt) / 1000) * rate);
      filledAt = time;
      tokens -= answer === 'change' ? 1 : idleCost;
      return Math.max(0, (-tokens / rate) * 1000);
    },
  };
}
