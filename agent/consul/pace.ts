/** How often a watch may ask when answers keep coming. */
export interface Pace {
  /** @returns how long to wait before asking again, in ms, after an answer */
  after(answer: Answer): number;
}

type Answer = 'change' | 'no change';

/**
 * So many may follow one another without any delay, and so many a second in the
 * long run. A deployment may well be hundreds of changes; to hurry after an
 * answer without one is of no use.
 */
const limits = {
  change: { burst: 500, rate: 50 },
  'no change': { burst: 10, rate: 10 },
};

/**
 * A token bucket for each kind of answer (Consul's docs on blocking queries ask
 * for a rate limit). The first changes after a quiet time are never delayed; an
 * endpoint that always answers at once is asked ten times a second.
 *
 * @param now in ms, that never goes back
 */
export function createPace(now: () => number = () => performance.now()): Pace {
  const began = now();
  const buckets = {
    change: { tokens: limits.change.burst, filledAt: began },
    'no change': { tokens: limits['no change'].burst, filledAt: began },
  };
  return {
    after(answer) {
      const { burst, rate } = limits[answer];
      const bucket = buckets[answer];
      const time = now();
      bucket.tokens = Math.min(burst, bucket.tokens + ((time - bucket.filledAt) / 1000) * rate) - 1;
      bucket.filledAt = time;
      return Math.max(0, (-bucket.tokens / rate) * 1000);
    },
  };
}
