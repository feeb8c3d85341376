import type { Consistency } from '../config/config.ts';
import { brief } from '../util/text.ts';
import type { Index } from './blocking-query.ts';
import { ConsulError } from './error.ts';
import type { Place, Reply } from './transport.ts';

/** How a query asks. */
export interface Query {
  consistency: Consistency;
  /** Not one of a watch: it must not wait until one of their connections is free. */
  isExtra?: boolean;
  /** One of a watch, for which the signal stands. */
  isWatch?: boolean;
  /** Of a watch that doorbells can carry, too: it may end with Crowded. */
  yields?: boolean;
  /** Blocks until the index is higher or `wait` (in ms) has passed; absent: answers at once. */
  block?: { index: Index; wait: number };
  /** Where it is asked for; what it leaves out is as configured. */
  place?: Place;
}

/** What is asked for. */
export interface Read {
  /** Behind `/v1`. */
  path: string;
  filter?: string | undefined;
  /** More of the query. */
  parameters?: Record<string, string>;
  /** It must show all that there is. */
  isWhole: boolean;
  expected: 'list' | 'object';
  /** Gives the digest of an answer, of which an equal one need not be read. */
  known?: (() => string | undefined) | undefined;
  /** A 404 is an answer: there is nothing. */
  mayBeAbsent?: boolean;
}

export interface Valid {
  index: Index | undefined;
  /** undefined: it is the known one. */
  body: object | undefined;
  digest: string | undefined;
}

/** Consul's indexes have 64 bits. */
const maxIndex = 2n ** 64n - 1n;
/** A stale answer older than this, in ms, is asked for again from the leader. */
const maxStale = 10_000;

/**
 * A follower without a leader, or far behind it (Consul's docs on consistency
 * modes). An answer of the streaming backend, which every blocking one of Consul
 * 1.10 and newer is, says nothing of either: docs/discoveries/consul-streaming.md.
 */
export function isTooStale({ headers }: Reply): boolean {
  if (headers['x-consul-query-backend'] === 'streaming') return false;
  if (headers['x-consul-knownleader'] === 'false') return true;
  return Number(headers['x-consul-lastcontact'] ?? 0) > maxStale;
}

function isFiltered(headers: Reply['headers']): boolean {
  return headers['x-consul-results-filtered-by-acls'] === 'true';
}

/** @param address where it was asked for @throws ConsulError when it cannot be used */
export function validAnswer(reply: Reply, read: Read, address: string): Valid {
  const { headers, digest, isKnown = false, isAbsent } = reply;
  if (read.isWhole && isFiltered(headers)) {
    const why = 'the token may not see all of the answer (filtered by ACLs)';
    throw new ConsulError('consul/filtered', `${address}: ${why}`);
  }
  const body = isAbsent ? [] : reply.body;
  const isJson = isAbsent || headers['content-type']?.startsWith('application/json');
  const isObject = typeof body === 'object' && body !== null;
  const isExpected = isObject && Array.isArray(body) === (read.expected === 'list');
  if (!isJson || (!isExpected && !isKnown)) {
    throw unusable(address, `the answer is not a JSON ${read.expected}`);
  }
  const index = headers['x-consul-index'];
  if (typeof index !== 'string' || !/^\d+$/.test(index)) {
    throw unusable(address, 'no X-Consul-Index, this cannot be watched');
  }
  const value = BigInt(index);
  // Consul could not read it back.
  if (value > maxIndex) throw unusable(address, `X-Consul-Index ${brief(index, 40)} is no index`);
  const known = { value: value > 0n ? value : 1n, address };
  return { index: known, body: isExpected ? body : undefined, digest };
}

function unusable(address: string, why: string): ConsulError {
  return new ConsulError('consul/unusable', `${address}: ${why}`);
}
