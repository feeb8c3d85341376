import { type PeerChanges, peerChanges } from './changes.ts';
import type { Wanted } from './desired.ts';
import type { Peers, Settings } from './document.ts';
import { type Held, holdKinds, type Observation, type Overview } from './hold.ts';

/** An upstream that is to be kept. */
export interface Declared {
  /** Who wants it, for people: the configuration, or a rule of discovery. */
  origin: string;
  settings: Settings;
  /** How long its last peers are held, in ms. */
  holdFor: number;
}

/** What is known of one upstream. */
export interface Known extends Declared {
  /** undefined: nothing is known, so what a target has stays. */
  peers: Peers | undefined;
  /** They come from Consul; else from a snapshot or a target, and never replace live state. */
  live: boolean;
  /** Whether the last observation had an instance; undefined before the first. */
  shows: boolean | undefined;
  /** The nodes of the last one that had; none: no observation had one yet. */
  nodes: string[];
  held: Held | undefined;
}

/** What has happened to one upstream. */
export type Change = { upstream: string } & (
  | { kind: 'declared' | 'withdrawn' }
  /** What is wanted of it is another now; no changes: only what we know of it is. */
  | { kind: 'observed'; changes: PeerChanges | undefined }
  | { kind: 'held'; why: string }
  | { kind: 'believed'; gone: number }
);

export interface State {
  /**
   * Whether the set of upstreams is whole: only then is one of ours that is not
   * in it removed from a target.
   */
  readonly isKnown: boolean;
  /** Brings the upstreams in line with a set; those that stay keep what is known of them. */
  declare(set: ReadonlyMap<string, Declared>, isKnown: boolean): void;
  /**
   * Takes what a source says. One with instances counts at once, even if none of
   * them may serve; a doubtful one is held, and the last peers stay.
   *
   * @param now in ms
   * @returns whether anything is other than before
   */
  observe(name: string, observation: Observation, now: number): boolean;
  /** Takes over peers from a snapshot or a target, unless Consul has told us better. */
  remember(name: string, peers: Peers): void;
  /** The upstreams whose held observations are to be confirmed. @param now in ms */
  due(now: number): string[];
  /** Believes what was held, if it is still due. @param now in ms */
  believe(name: string, now: number): void;
  get(name: string): Readonly<Known> | undefined;
  /** What a target should have of it; undefined: it is not to be kept. */
  wanted(name: string): Wanted | undefined;
  names(): Iterable<string>;
  overview(): Overview;
}

/** The upstreams and what is known of them. Pure. @param happened hears of every change, in order */
export function createState(happened: (change: Change) => void): State {
  const upstreams = new Map<string, Known>();
  /** Those with something held. */
  const holding = new Set<string>();
  let showing = 0;
  let shownSince: number | undefined;
  let isKnown = false;

  const overview = (): Overview => ({ upstreams: upstreams.size, shownSince });

  function forget(name: string): void {
    if (upstreams.get(name)?.shows) showing -= 1;
    if (showing === 0) shownSince = undefined;
    upstreams.delete(name);
    holding.delete(name);
    happened({ upstream: name, kind: 'withdrawn' });
  }

  function noteShown(known: Known, shows: boolean, now: number): void {
    showing += Number(shows) - Number(known.shows ?? false);
    known.shows = shows;
    shownSince = showing === 0 ? undefined : (shownSince ?? now);
  }

  function hold(name: string, known: Known, held: Held): void {
    const isNew = known.held?.kind !== held.kind;
    known.held = isNew ? held : { ...held, since: known.held?.since ?? held.since };
    holding.add(name);
    if (!isNew) return;
    happened({ upstream: name, kind: 'held', why: held.kind.describe(known.holdFor, overview()) });
  }

  function release(name: string, known: Known): void {
    known.held = undefined;
    holding.delete(name);
  }

  function isDue(name: string, now: number): boolean {
    const known = upstreams.get(name);
    if (known?.held === undefined) return false;
    return known.held.kind.isDue(known.held, known.holdFor, overview(), now);
  }

  return {
    get isKnown() {
      return isKnown;
    },
    declare(set, known) {
      isKnown = known;
      for (const name of [...upstreams.keys()]) if (!set.has(name)) forget(name);
      for (const [name, declared] of set) {
        const last = upstreams.get(name);
        if (last === undefined) {
          const nothing = { peers: undefined, live: false, shows: undefined, nodes: [] };
          upstreams.set(name, { ...declared, ...nothing, held: undefined });
        } else {
          Object.assign(last, declared);
        }
        happened({ upstream: name, kind: 'declared' });
      }
    },
    observe(name, observation, now) {
      const known = upstreams.get(name);
      if (known === undefined) return false;
      const isFirst = known.shows === undefined;
      noteShown(known, observation.instances > 0, now);
      const last = known.live ? known.peers : undefined;
      const kind = holdKinds.find((one) => one.doubts(observation, last));
      if (kind !== undefined) {
        hold(name, known, { kind, since: now, observation });
        if (isFirst) happened({ upstream: name, kind: 'observed', changes: undefined });
        return isFirst;
      }
      release(name, known);
      const changes = peerChanges(known.peers ?? {}, observation.peers);
      const isNew = isFirst || !known.live || changes !== undefined;
      const nodes = observation.instances > 0 ? observation.nodes : known.nodes;
      Object.assign(known, { peers: observation.peers, nodes, live: true });
      if (isNew) happened({ upstream: name, kind: 'observed', changes });
      return isNew;
    },
    remember(name, peers) {
      const known = upstreams.get(name);
      if (known !== undefined && !known.live) known.peers = peers;
    },
    due: (now) => [...holding].filter((name) => isDue(name, now)),
    believe(name, now) {
      const known = upstreams.get(name);
      if (known?.held === undefined || !isDue(name, now)) return;
      const { peers } = known.held.observation;
      const { removed } = peerChanges(known.peers ?? {}, peers) ?? { removed: [] };
      release(name, known);
      Object.assign(known, { peers, live: true });
      happened({ upstream: name, kind: 'believed', gone: removed.length });
    },
    get: (name) => upstreams.get(name),
    wanted(name) {
      const known = upstreams.get(name);
      if (known === undefined) return undefined;
      const { settings, peers, live, shows } = known;
      return { settings, peers, live, answered: shows !== undefined };
    },
    names: () => upstreams.keys(),
    overview,
  };
}
