/** Whether there are too many watches for a connection each. */
export interface Crowd {
  readonly isCrowded: boolean;
  /** @param followed so many watches there are now */
  count(followed: number): void;
  stop(): void;
}

/** A query that was ended, so that its watch is carried otherwise: it has not failed. */
export class Crowded extends Error {}

/** Of the most, so many are few enough to give each a connection again. */
const fewEnough = 0.75;

/**
 * One too many makes a crowd at once. It is over when there are clearly fewer,
 * and not before Consul has forgotten the queries that were ended for it: each
 * keeps its place there until its wait is over.
 *
 * @param most so many can have a connection each
 * @param atLeast how long a crowd lasts, in ms
 * @param changed is called when it begins and when it is over
 */
export function createCrowd(most: number, atLeast: number, changed: () => void): Crowd {
  let followed = 0;
  let since: number | undefined;
  let timer: NodeJS.Timeout | undefined;

  function look(): void {
    clearTimeout(timer);
    const now = performance.now();
    if (since === undefined) {
      if (followed <= most) return;
      since = now;
      changed();
    } else if (followed <= most * fewEnough) {
      const left = since + atLeast - now;
      if (left > 0) {
        timer = setTimeout(look, left).unref();
        return;
      }
      since = undefined;
      changed();
    }
  }

  return {
    get isCrowded() {
      return since !== undefined;
    },
    count(now) {
      followed = now;
      look();
    },
    stop: () => clearTimeout(timer),
  };
}
