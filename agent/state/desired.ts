import { type Document, entry, type Peers, type Settings, type Upstream } from './document.ts';
import type { Tracking } from './tracking.ts';

/** What the agent wants of one upstream. */
export interface Wanted {
  settings: Settings;
  /** undefined: not known. */
  peers: Peers | undefined;
  /** The peers are what Consul says now, so they replace those of a target. */
  live: boolean;
  /** Consul has answered, even if the answer is being held. */
  answered: boolean;
}

/** What is wanted of each configured upstream, with what is known of its peers. */
export function wantedOf(
  upstreams: ReadonlyMap<string, { settings: Settings }>,
  tracking: Tracking,
): Map<string, Wanted> {
  const all = new Map<string, Wanted>();
  for (const [name, { settings }] of upstreams) {
    const tracked = tracking.upstreams.get(name);
    if (tracked === undefined) continue;
    const { peers, live, shows } = tracked;
    all.set(name, { settings, peers, live, answered: shows !== undefined });
  }
  return all;
}

export interface Desired {
  document: Document;
  /** Upstreams of another owner (or of nobody) whose name is wanted: they are left alone. */
  foreign: string[];
}

/**
 * What a target should have, given what it has. Upstreams of other owners stay;
 * our own that are no longer wanted go; peers that did not come from Consul
 * never replace those of the target.
 */
export function desired(
  current: Document,
  wanted: ReadonlyMap<string, Wanted>,
  owner: string,
): Desired {
  const upstreams = new Map<string, Upstream>();
  const foreign: string[] = [];
  for (const [name, upstream] of Object.entries(current.upstreams)) {
    if (upstream.owner !== owner) upstreams.set(name, upstream);
  }
  for (const [name, want] of wanted) {
    const has = entry(current.upstreams, name);
    if (has !== undefined && has.owner !== owner) {
      foreign.push(name);
      continue;
    }
    const peers = want.live ? want.peers : (has?.peers ?? want.peers);
    if (peers === undefined && !want.answered) continue;
    upstreams.set(name, { owner, ...want.settings, peers: peers ?? {} });
  }
  return { document: { upstreams: Object.fromEntries(upstreams) }, foreign };
}

/** The document of our own upstreams, as the snapshot holds it: those with known peers. */
export function ownDocument(wanted: ReadonlyMap<string, Wanted>, owner: string): Document {
  const known = new Map([...wanted].filter(([, { peers }]) => peers !== undefined));
  return desired({ upstreams: {} }, known, owner).document;
}
