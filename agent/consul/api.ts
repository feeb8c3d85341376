import type { Consistency, ConsulConfig } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';
import { brief } from '../util/text.ts';
import { readToken } from '../util/token-file.ts';
import { createAddresses, type Moved } from './addresses.ts';
import type { Index } from './blocking-query.ts';
import { ConsulError } from './error.ts';
import { createPlanReport, type Planned } from './plan.ts';
import { createTransport } from './protocol.ts';
import { deniedAt, type Readable } from './rights.ts';
import { pathOf, type Reply, type Transport } from './transport.ts';
import type { Waits } from './wait.ts';

export interface Query {
  consistency: Consistency;
  /** Not one of a watch: it must not wait until one of their connections is free. */
  isExtra?: boolean;
  /** One of a watch, for which the signal stands. */
  isWatch?: boolean;
  /** Blocks until the index is higher or `wait` (in ms) has passed; absent: answers at once. */
  block?: { index: Index; wait: number };
}

export interface HealthQuery extends Query {
  service: string;
  filter: string | undefined;
  /** Gives the digest of an answer, of which an equal one need not be read. */
  known?: () => string | undefined;
}

/** The services that there are, with the tags that any of their instances has. */
export type Catalogue = ReadonlyMap<string, ReadonlySet<string>>;

export interface CatalogueAnswer {
  /** undefined: the next query cannot build on it. */
  index: Index | undefined;
  catalogue: Catalogue;
}

export interface HealthAnswer {
  /** undefined: the next query cannot build on it. */
  index: Index | undefined;
  /** As Consul sent them: all instances, whatever their health. */
  entries: unknown[];
  /** undefined: there is none. */
  digest?: string | undefined;
}

/** An answer that is equal to the known one. */
export interface KnownAnswer {
  index: Index | undefined;
  entries: undefined;
  digest?: string | undefined;
}

/**
 * Each call ends with the signal's reason when that is aborted. An error of ours
 * is not turned into one of Consul's.
 */
export interface ConsulClient {
  /** How a message calls it: by the address that is asked now. */
  readonly name: string;
  /** Every instance of a service. @throws ConsulError for all but a whole, valid answer */
  health(query: HealthQuery & { known?: undefined }, signal: AbortSignal): Promise<HealthAnswer>;
  health(query: HealthQuery, signal: AbortSignal): Promise<HealthAnswer | KnownAnswer>;
  /**
   * Every service that the token may see: one that is missing may be there.
   *
   * @throws ConsulError for all but a whole, valid answer
   */
  catalogue(query: Query, signal: AbortSignal): Promise<CatalogueAnswer>;
  /**
   * Which of these the token may not read; where Consul has no ACLs, none.
   *
   * @throws ConsulError when that cannot be asked
   */
  denied(things: Readable[], signal: AbortSignal): Promise<Readable[]>;
  /** How long Consul may hold a query of a watch now. */
  waits(): Waits;
  /** Uses the token that the file has now. @throws Error when it cannot be read */
  readToken(): void;
  close(): void;
}

/** What is asked for. */
interface Read {
  /** Behind `/v1`. */
  path: string;
  filter?: string | undefined;
  /** It must show all that there is. */
  isWhole: boolean;
  expected: 'list' | 'object';
  known?: (() => string | undefined) | undefined;
}

interface Valid {
  index: Index | undefined;
  /** undefined: it is the known one. */
  body: object | undefined;
  digest: string | undefined;
}

/** Beyond what Consul may take, in ms. */
const margin = 10_000;
/** Consul's indexes have 64 bits. */
const maxIndex = 2n ** 64n - 1n;
/** A stale answer older than this, in ms, is asked for again from the leader. */
const maxStale = 10_000;

/**
 * Asks Consul; it never retries by itself. When the token is refused, its file
 * is read again for the next request.
 *
 * @param moved hears which of several addresses is used
 * @param planned hears how the watches are carried
 * @throws Error when the token or a TLS file cannot be read
 */
export function createConsulClient(
  config: ConsulConfig,
  moved: Moved = () => {},
  planned: Planned = () => {},
): ConsulClient {
  const plan = createPlanReport(() => addresses.current, planned);
  const transports = config.endpoints.map((endpoint) => {
    return createTransport(endpoint, config, plan.changed);
  });
  const addresses = createAddresses(transports, moved);
  const closing = new AbortController();
  let token = currentToken(config);

  function send(
    transport: Transport,
    read: Read,
    { consistency, isExtra, isWatch = false, block }: Query,
    signal: AbortSignal,
  ): Promise<Reply> {
    // Consul adds up to a sixteenth to the wait (its docs on blocking queries).
    const held = Math.ceil((block?.wait ?? 0) * (1 + 1 / 16));
    const path = pathOf(read.path, config, {
      ...(consistency === 'default' ? {} : { [consistency]: '1' }),
      filter: read.filter,
      ...(block === undefined ? {} : { index: String(block.index.value), wait: `${block.wait}ms` }),
    });
    const pool = isExtra ? 'read' : 'watch';
    const rest = { token, pool, held, timeout: held + margin, what: transport.name } as const;
    const { known } = read;
    return transport.ask({ method: 'GET', path, isWatch, known, ...rest }, signal);
  }

  async function askAt(
    transport: Transport,
    read: Read,
    query: Query,
    signal: AbortSignal,
  ): Promise<Valid> {
    const { block, ...atOnce } = query;
    if (block !== undefined && block.index.address !== transport.name) {
      // Another server counts otherwise, and may not know yet what is known here.
      return askAt(transport, read, { ...atOnce, consistency: 'consistent' }, signal);
    }
    const reply = await send(transport, read, query, signal);
    if (query.consistency === 'stale' && isTooStale(reply)) {
      const fresh = await send(transport, read, { ...atOnce, consistency: 'default' }, signal);
      // An index of the leader would not fit the next stale answer.
      return { ...validAnswer(fresh, read, transport.name), index: undefined };
    }
    return validAnswer(reply, read, transport.name);
  }

  async function ask(read: Read, query: Query, signal: AbortSignal): Promise<Valid> {
    const { block: _, ...atOnce } = query;
    const look = { ...atOnce, consistency: 'consistent' as const, isExtra: true };
    try {
      return await addresses.ask(
        (transport) => askAt(transport, read, query, signal),
        (other) => askAt(other, read, look, closing.signal),
      );
    } catch (error) {
      takeNewToken(error);
      throw error;
    }
  }

  /** A token may have been replaced: the next request takes the one that the file has now. */
  function takeNewToken(error: unknown): void {
    if (!(error instanceof ConsulError) || error.code !== 'consul/refused') return;
    try {
      token = currentToken(config);
    } catch (unreadable) {
      if (!(unreadable instanceof ConfigError)) throw unreadable;
      const message = `${addresses.current.name}: ${error.status}, and ${unreadable.message}`;
      throw new ConsulError('consul/refused', message, { cause: unreadable });
    }
  }

  return {
    get name() {
      return addresses.current.name;
    },
    async health({ service, filter, known, ...query }: HealthQuery, signal: AbortSignal) {
      const path = `/health/service/${encodeURIComponent(service)}`;
      const read = { path, filter, known, isWhole: true, expected: 'list' } as const;
      const { index, body, digest } = await ask(read, query, signal);
      // Without one that is known there is a body.
      return { index, entries: body as unknown[], digest };
    },
    async catalogue(query, signal) {
      // A token may well be there for some of the services alone.
      const read = { path: '/catalog/services', isWhole: false, expected: 'object' } as const;
      const { index, body } = await ask(read, query, signal);
      const services = Object.entries(body ?? {}).map(([name, tags]): [string, Set<string>] => {
        return [name, new Set(Array.isArray(tags) ? tags : [])];
      });
      return { index, catalogue: new Map(services) };
    },
    async denied(things, signal) {
      try {
        return await addresses.ask((at) => deniedAt(at, config, token, things, signal));
      } catch (error) {
        takeNewToken(error);
        throw error;
      }
    },
    waits: () => addresses.current.waits(),
    readToken() {
      token = currentToken(config);
    },
    close() {
      closing.abort();
      plan.stop();
      for (const transport of transports) transport.close();
    },
  };
}

function currentToken({ token_file, token }: ConsulConfig): string | undefined {
  return token_file === undefined ? token : readToken(token_file);
}

/**
 * A follower without a leader, or far behind it (Consul's docs on consistency
 * modes). An answer of the streaming backend, which every blocking one of Consul
 * 1.10 and newer is, says nothing of either: docs/discoveries/consul-streaming.md.
 */
function isTooStale({ headers }: Reply): boolean {
  if (headers['x-consul-query-backend'] === 'streaming') return false;
  if (headers['x-consul-knownleader'] === 'false') return true;
  return Number(headers['x-consul-lastcontact'] ?? 0) > maxStale;
}

function isFiltered(headers: Reply['headers']): boolean {
  return headers['x-consul-results-filtered-by-acls'] === 'true';
}

/** @param address where it was asked for */
function validAnswer(reply: Reply, read: Read, address: string): Valid {
  const { headers, body, digest, isKnown = false } = reply;
  if (read.isWhole && isFiltered(headers)) {
    const why = 'the token may not see all of the answer (filtered by ACLs)';
    throw new ConsulError('consul/filtered', `${address}: ${why}`);
  }
  const isJson = headers['content-type']?.startsWith('application/json');
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
