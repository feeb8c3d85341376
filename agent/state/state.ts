import { type PeerChanges, peerChanges } from './changes.ts';
import type { Desired } from './desired.ts';
import type { Peers, Settings, Upstream } from './document.ts';
import type { Held, HoldKind, Observation, Overview } from './hold.ts';
import * as kinds from './holds/kinds.ts';
import { diff, type JsonObject } from './merge-patch.ts';

/** An upstream that is to be kept. */
export interface Declared {
  /** Who wants it, for people: the configuration, or a rule of discovery. */
  origin: string;
  settings: Settings;
  /** How long its last peers are held, in ms. */
  holdFor: number;
  /** It is there only while it has an instance, or while that is not known. */
  isTransient?: boolean;
}

/** What is known of one upstream. */
export interface Known {
  declared: Declared;
  /** undefined: nothing is known, so what a target has stays. */
  peers: Peers | undefined;
  /** What its source says of it, where it says nothing itself. */
  settings: Settings;
  /** They come from Consul; else from a snapshot or a target, and never replace live state. */
  live: boolean;
  /** Whether the last observation had an instance; undefined before the first. */
  shows: boolean | undefined;
  held: Held | undefined;
}

/** What has happened to one upstream. */
export type Change = { upstream: string } & (
  | { kind: 'declared' | 'withdrawn' }
  /** What is desired of it is another now; no changes: only what we know of it is. */
  | { kind: 'observed'; changes: PeerChanges | undefined }
  /** In words for people. */
  | { kind: 'held' | 'believed'; why: string }
);

export interface State {
  /**
   * Whether the set of upstreams is whole: only then is one of ours that is not
   * in it removed from a target.
   */
  readonly isKnown: boolean;
  /** Whether anything is held. */
  readonly isHolding: boolean;
  /**
   * Brings the upstreams in line with a set; those that stay keep what is known
   * of them.
   *
   * @param isKnown whether the set is whole
   * @param isPending the rest of it is to come: until then none is forgotten
   */
  declare(set: ReadonlyMap<string, Declared>, isKnown: boolean, isPending?: boolean): void;
  /**
   * Takes what a source says. One with instances counts at once, even if none of
   * them may serve; a doubtful one is held, and the last peers stay.
   *
   * @param now in ms
   * @returns whether anything is other than before
   */
  observe(name: string, observation: Observation, now: number): boolean;
  /**
   * Takes over what a snapshot or a target has, unless Consul has told us better.
   * While the rest of the set is to come, each of them may be in it.
   */
  remember(name: string, upstream: Upstream): void;
  /** The upstreams whose held observations are to be confirmed. @param now in ms */
  due(now: number): string[];
  /**
   * Believes what a source says for sure, if the time of each doubt in it has
   * come; else it is held on.
   *
   * @param held what the source was asked about; if something else is held now,
   *   the answer is of no matter any more
   * @param now in ms
   */
  confirm(name: string, held: Held, observation: Observation, now: number): void;
  get(name: string): Readonly<Known> | undefined;
  /** Whether Consul has said, and we believe, that it has no instance. */
  isGone(name: string): boolean;
  /** undefined: it is not to be kept. */
  desired(name: string): Desired | undefined;
  names(): Iterable<string>;
  overview(): Overview;
}

const holdKinds: HoldKind[] = Object.values(kinds);

/** The upstreams and what is known of them. Pure. @param happened hears of every change, in order */
export function createState(happened: (change: Change) => void): State {
  const upstreams = new Map<string, Known>();
  /** Those with something held. */
  const holding = new Set<string>();
  let showing = 0;
  let shownSince: number | undefined;
  let isKnown = false;
  let isPending = false;
  let set: ReadonlyMap<string, Declared> = new Map();

  const overview = (): Overview => ({ upstreams: upstreams.size, shownSince });

  function forget(name: string): void {
    if (upstreams.get(name)?.shows) showing -= 1;
    if (showing === 0) shownSince = undefined;
    upstreams.delete(name);
    holding.delete(name);
    happened({ upstream: name, kind: 'withdrawn' });
  }

  function begin(name: string, declared: Declared, peers?: Peers): void {
    const unknown = { settings: {}, live: false, shows: undefined, held: undefined };
    upstreams.set(name, { declared, peers, ...unknown });
  }

  function isGone(name: string): boolean {
    const { live, shows, held } = upstreams.get(name) ?? {};
    return live === true && shows === false && held === undefined;
  }

  function noteShown(known: Known, shows: boolean, now: number): void {
    showing += Number(shows) - Number(known.shows ?? false);
    known.shows = shows;
    shownSince = showing === 0 ? undefined : (shownSince ?? now);
  }

  /** Who doubts an observation, and since when. */
  function doubtsOf(known: Known, observation: Observation, now: number): Held['doubts'] {
    const last = known.live ? known.peers : undefined;
    const kinds = holdKinds.filter((kind) => kind.doubts(observation, last));
    return new Map(kinds.map((kind) => [kind, known.held?.doubts.get(kind) ?? now]));
  }

  function hold(name: string, known: Known, held: Held): void {
    const last = known.held;
    if (last !== undefined && isSame(last, held)) return;
    known.held = held;
    holding.add(name);
    // Nothing is kept of what was never seen.
    if (known.declared.isTransient && known.peers === undefined) return;
    for (const kind of held.doubts.keys()) {
      if (last?.doubts.has(kind)) continue;
      happened({
        upstream: name,
        kind: 'held',
        why: kind.held(known.declared.holdFor, overview()),
      });
    }
  }

  function isDue({ declared: { holdFor } }: Known, { doubts }: Held, now: number): boolean {
    return [...doubts].every(([kind, since]) => kind.isDue(since, holdFor, overview(), now));
  }

  /** @returns what it changes of the peers */
  function take(
    name: string,
    known: Known,
    { peers, settings = {} }: Observation,
  ): PeerChanges | undefined {
    const changes = peerChanges(known.peers ?? {}, peers);
    known.held = undefined;
    holding.delete(name);
    Object.assign(known, { peers, settings, live: true });
    return changes;
  }

  return {
    get isKnown() {
      return isKnown;
    },
    get isHolding() {
      return holding.size > 0;
    },
    declare(next, known, pending = false) {
      isKnown = known && !pending;
      isPending = pending;
      set = next;
      const others = pending ? [] : [...upstreams.keys()].filter((name) => !set.has(name));
      for (const name of others) forget(name);
      for (const [name, declared] of set) {
        const last = upstreams.get(name);
        if (last?.declared === declared) continue;
        if (last === undefined) begin(name, declared);
        else last.declared = declared;
        happened({ upstream: name, kind: 'declared' });
      }
    },
    observe(name, observation, now) {
      const known = upstreams.get(name);
      if (known === undefined) return false;
      const isFirst = known.shows === undefined;
      noteShown(known, observation.instances > 0, now);
      const doubts = doubtsOf(known, observation, now);
      if (doubts.size > 0) {
        hold(name, known, { observation, doubts });
        if (isFirst) happened({ upstream: name, kind: 'observed', changes: undefined });
        return isFirst;
      }
      const { live: wasLive, settings } = known;
      const changes = take(name, known, observation);
      const isOther = diff(settings as JsonObject, known.settings as JsonObject) !== undefined;
      const isNew = isFirst || !wasLive || isOther || changes !== undefined;
      if (isNew) happened({ upstream: name, kind: 'observed', changes });
      return isNew;
    },
    remember(name, { owner: _, overrides: __, peers, ...settings }) {
      const known = upstreams.get(name);
      if (known?.live || (known === undefined && !isPending)) return;
      if (set.has(name)) Object.assign(known ?? {}, { peers });
      else begin(name, { origin: 'memory', settings, holdFor: 0 }, peers);
    },
    due(now) {
      return [...holding].filter((name) => {
        const known = upstreams.get(name);
        return known?.held !== undefined && isDue(known, known.held, now);
      });
    },
    confirm(name, held, observation, now) {
      const known = upstreams.get(name);
      if (known === undefined || known.held !== held) return;
      noteShown(known, observation.instances > 0, now);
      const doubts = doubtsOf(known, observation, now);
      if (!isDue(known, { observation, doubts }, now)) {
        hold(name, known, { observation, doubts });
        return;
      }
      const wasKnown = known.peers !== undefined;
      const changes = take(name, known, observation);
      const [kind] = doubts.keys();
      if (kind === undefined || (known.declared.isTransient && !wasKnown)) {
        happened({ upstream: name, kind: 'observed', changes });
      } else {
        const gone = changes?.removed.length ?? 0;
        happened({ upstream: name, kind: 'believed', why: kind.believed(gone) });
      }
    },
    get: (name) => upstreams.get(name),
    isGone,
    desired(name) {
      const known = upstreams.get(name);
      if (known === undefined) return undefined;
      const { declared, peers, live, shows } = known;
      const { isTransient } = declared;
      const settings = { ...known.settings, ...declared.settings };
      if (isTransient && isGone(name)) return undefined;
      // One that was never seen is not made.
      const answered = shows !== undefined && !(isTransient && peers === undefined);
      return { settings, peers, live, answered };
    },
    names: () => upstreams.keys(),
    overview,
  };
}

function isSame(one: Held, other: Held): boolean {
  return (
    one.observation.instances === other.observation.instances &&
    peerChanges(one.observation.peers, other.observation.peers) === undefined &&
    one.doubts.size === other.doubts.size &&
    [...one.doubts.keys()].every((kind) => other.doubts.has(kind))
  );
}
