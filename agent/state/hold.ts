import type { Peers } from './document.ts';
import { emptyHold } from './holds/empty.ts';

/** What a source says of an upstream. */
export interface Observation {
  /** How many instances there are, whatever their health. */
  instances: number;
  /** Where they are, by the names that Consul gives its nodes. */
  nodes: string[];
  /** Those that serve. */
  peers: Peers;
}

/** What a hold may know of the whole. */
export interface Overview {
  upstreams: number;
  /** Since when at least one upstream has shown an instance, in ms; undefined: none does. */
  shownSince: number | undefined;
}

/** An observation that is not believed as yet: the upstream keeps its last peers. */
export interface Held {
  kind: HoldKind;
  /** When it began, in ms. */
  since: number;
  observation: Observation;
}

/** A reason to hold an observation, in a file of its own under `holds/`. */
export interface HoldKind {
  /** One word, for status and metrics. */
  readonly reason: string;
  /** @param last the peers that Consul showed before; undefined: it has shown none yet */
  doubts(observation: Observation, last: Peers | undefined): boolean;
  /**
   * Whether it has been held for long enough, so that it is to be confirmed.
   *
   * @param holdFor how long the upstream's peers are held, in ms
   * @param now in ms
   */
  isDue(held: Held, holdFor: number, all: Overview, now: number): boolean;
  /** For people: what was seen, and how long the last peers stay. */
  describe(holdFor: number, all: Overview): string;
}

/** In this order they are asked; the first that doubts holds. */
export const holdKinds: readonly HoldKind[] = [emptyHold];
