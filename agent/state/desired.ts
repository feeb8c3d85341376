import { type Document, entry, type Peers, type Settings, type Upstream } from './document.ts';
import { type DocumentPatch, diffDocuments } from './parts.ts';
import type { State } from './state.ts';

/** What the agent knows that one upstream should be, whatever a target has. */
export interface Desired {
  settings: Settings;
  /** undefined: not known. */
  peers: Peers | undefined;
  /** The peers are what Consul says now, so they replace those of a target. */
  live: boolean;
  /** Consul has answered, even if the answer is being held. */
  answered: boolean;
}

/** The upstream is of another owner, or of nobody: it is left alone. */
const foreign = Symbol('foreign');

/**
 * What a target should have of one upstream, given what it has. One of another
 * owner stays; one of our own that is not desired goes, once the set of upstreams
 * is known, all but its overrides; peers that did not come from Consul never replace those of the target.
 *
 * @param has undefined: the target has none of that name
 * @returns undefined when it should have none; `foreign` when its name is desired
 *   and it is another's
 */
function shouldHave(
  has: Upstream | undefined,
  desired: Desired | undefined,
  { owner, isKnown }: { owner: string; isKnown: boolean },
): Upstream | undefined | typeof foreign {
  const isForeign = has !== undefined && has.owner !== owner && !isVacant(has);
  const kept = has?.overrides === undefined ? {} : { overrides: has.overrides };
  if (desired === undefined) {
    if (isForeign || !isKnown) return has;
    return has?.overrides === undefined ? undefined : { ...kept, peers: {} };
  }
  if (isForeign) return foreign;
  const peers = desired.live ? desired.peers : (has?.peers ?? desired.peers);
  if (peers === undefined && !desired.answered) return has;
  return { owner, ...desired.settings, ...kept, peers: peers ?? {} };
}

/** Nobody's: what a person has said of its peers is all that there is of it. */
function isVacant({ overrides, peers, ...rest }: Upstream): boolean {
  return (
    overrides !== undefined && Object.keys(peers).length === 0 && Object.keys(rest).length === 0
  );
}

export interface Difference {
  /** undefined: there is none. */
  patch: DocumentPatch | undefined;
  /** Those that are as they should be, made of what the state has. */
  same: Document;
  /** Those whose name is desired, and that are of another owner or of nobody. */
  foreign: string[];
}

/**
 * What is to be sent to a target for some upstreams; costs what these cost,
 * whatever else there is.
 *
 * @param has what the target has
 * @param names of the upstreams to be compared, whether or not it has them
 */
export function difference(
  has: Document,
  names: Iterable<string>,
  state: Pick<State, 'desired' | 'isKnown'>,
  owner: string,
): Difference {
  const from: [string, Upstream][] = [];
  const to: [string, Upstream][] = [];
  const foreigners: string[] = [];
  for (const name of names) {
    const had = entry(has.upstreams, name);
    const should = shouldHave(had, state.desired(name), { owner, isKnown: state.isKnown });
    if (should === foreign) {
      foreigners.push(name);
      continue;
    }
    if (had !== undefined) from.push([name, had]);
    if (should !== undefined) to.push([name, should]);
  }
  const document = (upstreams: [string, Upstream][]) => ({
    upstreams: Object.fromEntries(upstreams),
  });
  const patch = diffDocuments(document(from), document(to));
  const same = to.filter(([name]) => entry(patch?.upstreams ?? {}, name) === undefined);
  return { patch, same: document(same), foreign: foreigners };
}

/** The names of all upstreams that a target has or should have. */
export function allNames(has: Document, state: Pick<State, 'names'>): Set<string> {
  return new Set([...Object.keys(has.upstreams), ...state.names()]);
}

/** The document of our own upstreams, as the snapshot holds it: those with known peers. */
export function ownDocument(state: Pick<State, 'names' | 'desired'>, owner: string): Document {
  const upstreams: [string, Upstream][] = [];
  for (const name of state.names()) {
    const { settings, peers } = state.desired(name) ?? {};
    if (peers !== undefined) upstreams.push([name, { owner, ...settings, peers }]);
  }
  return { upstreams: Object.fromEntries(upstreams) };
}
