/** How long Consul may hold the queries of a watch, in ms. */
export interface Waits {
  /** Of the first; each that ends well doubles it, so that none is held for longer than the watch has been well. */
  first: number;
  /**
   * Of the first after an error. What comes back may be another server or have
   * other data, whose index is lower.
   */
  afterError: number;
  most: number;
}

/** The waits of one address. */
export interface Wait {
  now(): Waits;
  /** What lies between has cut a query that was silent for so long, in ms. */
  cut(after: number): void;
}

/**
 * Short, since a query that was cancelled keeps its connection slot in Consul
 * until then, since one with an index above the server's is deaf until then, and
 * since Consul 1.22.4 and many proxies cut an answer after 30 s: with the jitter
 * and the sixteenth that Consul adds it is less.
 */
const usual = 25_000;

/** Consul holds none for longer, in ms. */
const longest = 600_000;

/** So many watches are renewed in a second, over all of one address. */
const renewals = 8;

/** So many are asked anew in a second after all of them have been cut. */
export const anew = 250;

/** For so long a cut is remembered, in ms: what cuts may have gone. */
const memory = 600_000;

/** Where each watch has a connection of its own. */
export function ownConnection(set = usual): Wait {
  return {
    now: () => ({ first: set, afterError: Math.min(set, 1_000), most: set }),
    cut() {},
  };
}

/**
 * Where watches share connections, and hold no slots. The more there are the
 * longer each waits, so that to renew them costs the same; what would be noticed
 * late shows in those of the others.
 *
 * @param set as the user wants it; undefined: it is chosen
 * @param watches how many there are
 */
export function sharedConnections(set: number | undefined, watches: () => number): Wait {
  let limit = longest;
  let cutAt = Number.NEGATIVE_INFINITY;
  return {
    now() {
      const count = watches();
      if (performance.now() - cutAt > memory) limit = longest;
      const chosen = Math.min(Math.max(usual, (count / renewals) * 1000), limit);
      const wait = set ?? chosen;
      // Those that begin together are not renewed together.
      const spread = wait > usual ? 0.5 + Math.random() / 2 : 1;
      return {
        first: Math.min(wait, usual) * spread,
        afterError: Math.min(wait, Math.max(1_000, (count / anew) * 1000)),
        most: wait,
      };
    },
    cut(after) {
      limit = Math.min(limit, after * 0.8);
      cutAt = performance.now();
    },
  };
}
