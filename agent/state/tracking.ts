import type { Peers } from './document.ts';

/** What is known of one upstream's peers. */
export interface Tracked {
  /** undefined: nothing is known, so what a target has stays. */
  peers: Peers | undefined;
  /** They come from Consul; else from a snapshot or a target, and never replace live state. */
  live: boolean;
  /** Whether the last valid answer had an instance; undefined before the first. */
  shows: boolean | undefined;
  /** When an answer without an instance began to be held, in ms. */
  emptySince: number | undefined;
}

export interface Tracking {
  upstreams: Map<string, Tracked>;
  /** Since when at least one upstream has shown an instance, in ms; undefined: none does. */
  shownSince: number | undefined;
}

/** @returns the state before anything is known */
export function newTracking(): Tracking {
  return { upstreams: new Map(), shownSince: undefined };
}

/** Brings the tracked upstreams in line with the configured names. */
export function track(tracking: Tracking, names: Iterable<string>): void {
  const wanted = new Set(names);
  for (const name of wanted) {
    if (tracking.upstreams.has(name)) continue;
    tracking.upstreams.set(name, {
      peers: undefined,
      live: false,
      shows: undefined,
      emptySince: undefined,
    });
  }
  for (const name of tracking.upstreams.keys()) {
    if (!wanted.has(name)) tracking.upstreams.delete(name);
  }
  noteShown(tracking, tracking.shownSince ?? Number.NEGATIVE_INFINITY);
}

/** Takes over peers from a snapshot or a target, unless Consul has told us better. */
export function remember(tracking: Tracking, name: string, peers: Peers): void {
  const tracked = tracking.upstreams.get(name);
  if (tracked !== undefined && !tracked.live) tracked.peers = peers;
}

/**
 * Takes a valid answer of Consul.
 *
 * One with instances counts at once, even if none of them may serve. One
 * without any is ambiguous (it is also what a token without rights gets), so
 * the last peers stay until `empty` is called.
 *
 * @param instances how many the answer had, whatever their health
 * @param peers those that serve
 * @param now in ms
 */
export function answered(
  tracking: Tracking,
  name: string,
  instances: number,
  peers: Peers,
  now: number,
): void {
  const tracked = tracking.upstreams.get(name);
  if (tracked === undefined) return;
  tracked.shows = instances > 0;
  if (tracked.shows) {
    Object.assign(tracked, { peers, live: true, emptySince: undefined });
  } else if (!isEmpty(tracked)) {
    tracked.emptySince ??= now;
  }
  noteShown(tracking, now);
}

/**
 * The upstreams whose peers have been held for long enough. Where several are
 * watched and none shows an instance, the catalogue itself is in doubt: then it
 * is none of them, and the time starts again when one is back.
 *
 * @param hold how long the upstream's peers are held, in ms
 * @param now in ms
 */
export function dueToEmpty(
  tracking: Tracking,
  hold: (name: string) => number,
  now: number,
): string[] {
  if (!isBelievable(tracking)) return [];
  const believedSince = tracking.upstreams.size === 1 ? 0 : (tracking.shownSince ?? now);
  return [...tracking.upstreams.entries()]
    .filter(([name, { emptySince }]) => {
      return emptySince !== undefined && now - Math.max(emptySince, believedSince) >= hold(name);
    })
    .map(([name]) => name);
}

/** @returns whether an answer without instances can be true, with what the others show. */
export function isBelievable(tracking: Tracking): boolean {
  return tracking.upstreams.size === 1 || tracking.shownSince !== undefined;
}

/** Believes that the upstream has no instance. */
export function empty(tracking: Tracking, name: string): void {
  const tracked = tracking.upstreams.get(name);
  if (tracked === undefined || tracked.emptySince === undefined) return;
  Object.assign(tracked, { peers: {}, live: true, emptySince: undefined });
}

function isEmpty(tracked: Tracked): boolean {
  return tracked.live && tracked.peers !== undefined && Object.keys(tracked.peers).length === 0;
}

function noteShown(tracking: Tracking, now: number): void {
  const any = [...tracking.upstreams.values()].some(({ shows }) => shows === true);
  tracking.shownSince = any ? (tracking.shownSince ?? now) : undefined;
}
