import type { Peers, Settings } from './document.ts';

/** What a source says of an upstream. */
export interface Observation {
  /** How many there are, those that do not serve included. */
  instances: number;
  /** Those that serve. */
  peers: Peers;
  /** Of the upstream, where it says nothing itself. */
  settings?: Settings;
}

/** What a hold may know of the whole. */
export interface Overview {
  upstreams: number;
  /** Since when at least one upstream has shown an instance, in ms; undefined: none does. */
  shownSince: number | undefined;
}

/** An observation that is not believed as yet: the upstream keeps its last peers. */
export interface Held {
  observation: Observation;
  /** The kinds that doubt it, and since when each, in ms. */
  doubts: ReadonlyMap<HoldKind, number>;
}

/**
 * A reason to hold an observation, in a file of its own beside `holds/kinds.ts`,
 * where it is listed. What several doubt is held until the time of each has come;
 * then the source is asked once more, and what it says for sure is believed.
 */
export interface HoldKind {
  /** @param last the peers that Consul showed before; undefined: it has shown none yet */
  doubts(observation: Observation, last: Peers | undefined): boolean;
  /**
   * Whether it has been held for long enough, so that it is to be confirmed.
   *
   * @param since when the doubt began, in ms
   * @param holdFor how long the upstream's peers are held, in ms
   * @param now in ms
   */
  isDue(since: number, holdFor: number, all: Overview, now: number): boolean;
  /** For people: what was seen, and how long the last peers stay. */
  held(holdFor: number, all: Overview): string;
  /** For people: it was true. @param gone how many of the last peers went */
  believed(gone: number): string;
  /** For people: why `sync`, which cannot wait, keeps peers, as what follows "though". */
  kept(all: Overview): string;
}
