import type { Balance } from './balances.ts';
import { put } from './merge-patch.ts';

/** The upstream table: the one document that Consul's answers, the wire, the snapshot and nginx share. */

/** One address that an upstream may send requests to. Absent fields have nginx's meaning of absent. */
export interface Peer {
  /** Default 1; 0 takes no new traffic. */
  weight?: number;
  /** Serves only when no other peer is left. */
  backup?: boolean;
  /** Keeps its sticky sessions, takes no new ones. */
  drain?: boolean;
  /** Takes nothing at all. */
  down?: boolean;
  id?: string;
  zone?: string;
  /** Connections at once; 0 is no limit. */
  max_conns?: number;
  /** Seconds. */
  slow_start?: number;
  max_fails?: number;
  /** Seconds. */
  fail_timeout?: number;
}

/** By address: `a.b.c.d:port` or `[v6]:port` in canonical form. */
export type Peers = Record<string, Peer>;

/** Everything of an upstream that comes from configuration. Times are in seconds. */
export interface Settings {
  balance?: Balance;
  hash_key?: string;
  /** A cookie's name, or all that it has. */
  sticky?: string | Sticky;
  /** This one and the next three are the defaults of its peers. */
  max_conns?: number;
  slow_start?: number;
  max_fails?: number;
  fail_timeout?: number;
  max_tries?: number;
  connect_timeout?: number;
  send_timeout?: number;
  read_timeout?: number;
  zone?: string;
}

/** The cookie of sticky sessions: its attributes as RFC 6265 has them. */
export interface Sticky {
  cookie: string;
  /** Default `/`. */
  path?: string;
  domain?: string;
  /** Seconds; without it the cookie ends with the browser's session. */
  max_age?: number;
  /** Default false. */
  secure?: boolean;
  /** Default true. */
  http_only?: boolean;
  /** Default `lax`. */
  same_site?: 'strict' | 'lax' | 'none';
}

/** What a person says of a peer, above whoever manages the upstream. */
export interface Override extends Peer {
  /** Epoch seconds; without it there is no end. */
  expires_at?: number;
  note?: string;
  /** Who says it. */
  by?: string;
}

export interface Upstream extends Settings {
  /** Who manages it; absent when it was made by hand. */
  owner?: string;
  /** By address, whether or not the peer is there. No agent changes them. */
  overrides?: Record<string, Override>;
  peers: Peers;
}

export interface Document {
  upstreams: Record<string, Upstream>;
}

/**
 * What a key holds, whatever the key is called: `constructor` and `toString`
 * are upstream names like any other.
 */
export function entry<T>(record: Record<string, T>, key: string): T | undefined {
  return Object.hasOwn(record, key) ? record[key] : undefined;
}

/** Some upstreams of a document: those of these names that it has. */
export function subset({ upstreams }: Document, names: Iterable<string>): Document {
  const part: [string, Upstream][] = [];
  for (const name of names) {
    const upstream = entry(upstreams, name);
    if (upstream !== undefined) part.push([name, upstream]);
  }
  return { upstreams: Object.fromEntries(part) };
}

/** Puts the upstreams of these names into a document, in place, as the part has them. */
export function putSubset({ upstreams }: Document, part: Document, names: Iterable<string>): void {
  for (const name of names) {
    const value = entry(part.upstreams, name);
    if (value === undefined) delete upstreams[name];
    else put(upstreams, name, value);
  }
}
