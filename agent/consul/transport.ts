import type { IncomingHttpHeaders } from 'node:http';
import type { Waits } from './wait.ts';

/** Which share of the connections a request may use: that of watches, or what is kept free for other reads. */
export type Pool = 'watch' | 'read';

/** All that a request says, however it is sent. */
export interface Request {
  method: 'GET' | 'POST';
  /** Behind `/v1`, with its query. */
  path: string;
  token: string | undefined;
  /** Sent as JSON; undefined: none. */
  body?: unknown;
  pool: Pool;
  /** How long Consul may hold it, in ms. */
  held: number;
  /** For the whole answer, in ms. */
  timeout: number;
  /** To begin the message of an error with. */
  what: string;
  /** One of a watch, for which the signal stands: it is refused when there are too many. */
  isWatch?: boolean;
  /** Gives the digest of an answer, when it comes to it: one with the same body need not be read. */
  known?: (() => string | undefined) | undefined;
  /** It may end with Crowded. */
  yields?: boolean;
  /** A 404 is an answer, and no error. */
  mayBeAbsent?: boolean;
}

export interface Reply {
  headers: IncomingHttpHeaders;
  /** JSON where the answer says that it is, else its text; undefined: none, or the known one. */
  body: unknown;
  /** Of the body, where the wire has it: of watches over HTTP/2. */
  digest?: string | undefined;
  /** The body is the known one. */
  isKnown?: boolean;
  /** It was a 404. */
  isAbsent?: boolean;
}

/** A way to send requests to one address. */
export interface Wire {
  /**
   * Sends one request. What Consul cannot have seen, since its connection was
   * closed while it was idle, is sent again.
   *
   * @throws ConsulError when it fails, the signal's reason when that ended it;
   *   an error of ours stays what it is
   */
  ask(request: Request, signal: AbortSignal): Promise<Reply>;
  close(): void;
}

/** One address of Consul. */
export interface Transport extends Wire {
  /** How a message calls it. */
  readonly name: string;
  readonly plan: Plan;
  /** How long Consul may hold a query of a watch now. */
  waits(): Waits;
  /** Ends the queries that it holds, over some time, as if they had been cut: who asked them asks anew. */
  rouse(): void;
}

/** How the watches of one address are carried. */
export interface Plan {
  /** So many are followed. */
  followed: number;
  /** So many more are not, since there are too few connections. */
  left: number;
  /** Of HTTP/2; undefined: each has a connection of its own, or there is a crowd. */
  connections: number | undefined;
  /** They are too many for a connection each. */
  isCrowded: boolean;
}

/** Where something is: in which part of Consul. */
export interface Place {
  datacenter?: string | undefined;
  namespace?: string | undefined;
  partition?: string | undefined;
  /** The cluster that it is imported from. */
  peer?: string | undefined;
}

/**
 * A path with its query, in a place.
 *
 * @param query a parameter that is undefined is left out
 */
export function pathOf(
  path: string,
  { datacenter, namespace, partition, peer }: Place,
  query: Record<string, string | undefined> = {},
): string {
  const all = Object.entries({ ...query, dc: datacenter, ns: namespace, partition, peer });
  const given = all.filter((pair): pair is [string, string] => pair[1] !== undefined);
  return given.length === 0 ? path : `${path}?${new URLSearchParams(given)}`;
}

/** A place, with what it does not say taken from another. */
export function placeIn(other: Place, place: Place): Place {
  return {
    datacenter: place.datacenter ?? other.datacenter,
    namespace: place.namespace ?? other.namespace,
    partition: place.partition ?? other.partition,
    peer: place.peer ?? other.peer,
  };
}

/** The path of a key, or of all that begin with it. */
export function kvPath(key: string): string {
  return `/kv/${key.split('/').map(encodeURIComponent).join('/')}`;
}

/** An error of a proxy may call itself JSON and not be it: then it is text. */
export function parseOrText(body: Buffer | string): unknown {
  const text = body.toString();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
