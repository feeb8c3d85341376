import type { Consistency, ConsulConfig } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';
import { brief } from '../util/text.ts';
import { readToken } from '../util/token-file.ts';
import { createAddresses, type Moved } from './addresses.ts';
import type { Index } from './blocking-query.ts';
import { ConsulError } from './error.ts';
import { createTransport, type Reply, type Transport } from './http1.ts';
import { deniedAt, type Readable } from './rights.ts';

export interface HealthQuery {
  service: string;
  filter: string | undefined;
  consistency: Consistency;
  /** Not one of a watch: it must not wait until one of their connections is free. */
  isExtra?: boolean;
  /** Blocks until the index is higher or `wait` (in ms) has passed; absent: answers at once. */
  block?: { index: Index; wait: number };
}

export interface HealthAnswer {
  /** undefined: the next query cannot build on it. */
  index: Index | undefined;
  /** As Consul sent them: all instances, whatever their health. */
  entries: unknown[];
}

/**
 * Each call ends with the signal's reason when that is aborted. An error of ours
 * is not turned into one of Consul's.
 */
export interface ConsulClient {
  /** How a message calls it: by the address that is asked now. */
  readonly name: string;
  /** Every instance of a service. @throws ConsulError for all but a whole, valid answer */
  health(query: HealthQuery, signal: AbortSignal): Promise<HealthAnswer>;
  /**
   * Which of these the token may not read; where Consul has no ACLs, none.
   *
   * @throws ConsulError when that cannot be asked
   */
  denied(things: Readable[], signal: AbortSignal): Promise<Readable[]>;
  /** Uses the token that the file has now. @throws Error when it cannot be read */
  readToken(): void;
  close(): void;
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
 * @throws Error when the token or a TLS file cannot be read
 */
export function createConsulClient(config: ConsulConfig, moved: Moved = () => {}): ConsulClient {
  const transports = config.endpoints.map((endpoint) => createTransport(endpoint, config));
  const addresses = createAddresses(transports, moved);
  const closing = new AbortController();
  let token = currentToken(config);

  function common(consistency: Consistency) {
    return {
      ...(token === undefined ? {} : { token }),
      ...(config.datacenter === undefined ? {} : { dc: config.datacenter }),
      ...(consistency === 'default' ? {} : { [consistency]: true }),
    };
  }

  function send(
    transport: Transport,
    query: HealthQuery,
    signal: AbortSignal,
  ): Promise<Reply<unknown>> {
    const { service, filter, consistency, block } = query;
    // Consul adds up to a sixteenth to the wait (its docs on blocking queries).
    const held = Math.ceil((block?.wait ?? 0) * (1 + 1 / 16));
    const options = {
      ...common(consistency),
      service,
      ...(filter === undefined ? {} : { filter }),
      ...(block === undefined ? {} : { index: String(block.index.value), wait: `${block.wait}ms` }),
      timeout: held + margin,
    };
    return transport.call(
      (ctx) => transport.consul.health.service({ ...options, ctx } as typeof options),
      signal,
      { pool: query.isExtra ? 'read' : 'watch', held, what: transport.name },
    );
  }

  async function healthAt(
    transport: Transport,
    query: HealthQuery,
    signal: AbortSignal,
  ): Promise<HealthAnswer> {
    const { block, ...atOnce } = query;
    if (block !== undefined && block.index.address !== transport.name) {
      // Another server counts otherwise, and may not know yet what is known here.
      return healthAt(transport, { ...atOnce, consistency: 'consistent' }, signal);
    }
    const reply = await send(transport, query, signal);
    if (query.consistency === 'stale' && isTooStale(reply)) {
      const fresh = await send(transport, { ...atOnce, consistency: 'default' }, signal);
      // An index of the leader would not fit the next stale answer.
      return { ...validAnswer(fresh, transport.name), index: undefined };
    }
    return validAnswer(reply, transport.name);
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
    async health(query, signal) {
      const { block: _, ...atOnce } = query;
      const look = { ...atOnce, consistency: 'consistent' as const, isExtra: true };
      try {
        return await addresses.ask(
          (transport) => healthAt(transport, query, signal),
          (first) => healthAt(first, look, closing.signal),
        );
      } catch (error) {
        takeNewToken(error);
        throw error;
      }
    },
    async denied(things, signal) {
      try {
        return await addresses.ask((at) => deniedAt(at, config, token, things, signal));
      } catch (error) {
        takeNewToken(error);
        throw error;
      }
    },
    readToken() {
      token = currentToken(config);
    },
    close() {
      closing.abort();
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
function isTooStale({ headers }: Reply<unknown>): boolean {
  if (headers['x-consul-query-backend'] === 'streaming') return false;
  if (headers['x-consul-knownleader'] === 'false') return true;
  return Number(headers['x-consul-lastcontact'] ?? 0) > maxStale;
}

function isFiltered(headers: Reply<unknown>['headers']): boolean {
  return headers['x-consul-results-filtered-by-acls'] === 'true';
}

/** @param address where it was asked for */
function validAnswer({ headers, body }: Reply<unknown>, address: string): HealthAnswer {
  if (isFiltered(headers)) {
    const why = 'the token may not see all of the answer (filtered by ACLs)';
    throw new ConsulError('consul/filtered', `${address}: ${why}`);
  }
  if (!headers['content-type']?.startsWith('application/json') || !Array.isArray(body)) {
    throw unusable(address, 'the answer is not a JSON list');
  }
  const index = headers['x-consul-index'];
  if (typeof index !== 'string' || !/^\d+$/.test(index)) {
    throw unusable(address, 'no X-Consul-Index, this cannot be watched');
  }
  const value = BigInt(index);
  // Consul could not read it back.
  if (value > maxIndex) throw unusable(address, `X-Consul-Index ${brief(index, 40)} is no index`);
  return { index: { value: value > 0n ? value : 1n, address }, entries: body };
}

function unusable(address: string, why: string): ConsulError {
  return new ConsulError('consul/unusable', `${address}: ${why}`);
}
