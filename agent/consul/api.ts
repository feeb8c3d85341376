import type { Consistency, ConsulConfig } from '../config/config.ts';
import { brief } from '../util/text.ts';
import { readToken } from '../util/token-file.ts';
import { asConsulError, ConsulError } from './error.ts';
import { createTransport, type Reply } from './http1.ts';

export interface HealthQuery {
  service: string;
  filter: string | undefined;
  consistency: Consistency;
  /** Not one of a watch: it must not wait until one of their connections is free. */
  isExtra?: boolean;
  /** Blocks until the index is higher or `wait` (in ms) has passed; absent: answers at once. */
  block?: { index: bigint; wait: number };
}

export interface HealthAnswer {
  /** Opaque but for its order, and at least 1; undefined: the next query cannot build on it. */
  index: bigint | undefined;
  /** As Consul sent them: all instances, whatever their health. */
  entries: unknown[];
}

/** What a token may be allowed to read. */
export interface Readable {
  resource: 'service' | 'node';
  name: string;
}

export interface ConsulClient {
  /** How a message calls it. */
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
/** How many rights Consul takes in one question (its ACLAuthorize). */
const maxRights = 64;
/** Consul's indexes have 64 bits. */
const maxIndex = 2n ** 64n - 1n;
/** A stale answer older than this, in ms, is asked for again from the leader. */
const maxStale = 10_000;

/**
 * Asks Consul; it never retries by itself. When the token is refused, its file
 * is read again for the next request.
 *
 * @throws Error when the token or a TLS file cannot be read
 */
export function createConsulClient(config: ConsulConfig): ConsulClient {
  const transport = createTransport(config);
  const name = `Consul at ${config.endpoint.name}`;
  let token = currentToken(config);

  function common(consistency: Consistency) {
    return {
      ...(token === undefined ? {} : { token }),
      ...(config.datacenter === undefined ? {} : { dc: config.datacenter }),
      ...(consistency === 'default' ? {} : { [consistency]: true }),
    };
  }

  /** @returns which of at most `maxRights` things the token may not read */
  async function deniedOf(things: Readable[], signal: AbortSignal): Promise<Readable[]> {
    const { body } = await transport.call(
      (ctx) => {
        return transport.post('/internal/acl/authorize', {
          headers: token === undefined ? {} : { 'x-consul-token': token },
          query: config.datacenter === undefined ? {} : { dc: config.datacenter },
          body: things.map(({ resource, name: segment }) => ({
            Resource: resource,
            Segment: segment,
            Access: 'read',
            ...(config.namespace === undefined ? {} : { Namespace: config.namespace }),
          })),
          timeout: margin,
          ctx,
        });
      },
      signal,
      'read',
    );
    if (!Array.isArray(body) || body.length !== things.length) {
      throw new Error('the answer is not what was asked for');
    }
    const answers = body as ({ Allow?: unknown } | null)[];
    return things.filter((_, i) => answers[i]?.Allow !== true);
  }

  async function ask(query: HealthQuery, signal: AbortSignal): Promise<Reply<unknown>> {
    const { service, filter, consistency, block } = query;
    const options = {
      ...common(consistency),
      service,
      ...(filter === undefined ? {} : { filter }),
      ...(block === undefined ? {} : { index: String(block.index), wait: `${block.wait}ms` }),
      // Consul adds up to a sixteenth to the wait (its docs on blocking queries).
      timeout: Math.ceil((block?.wait ?? 0) * (1 + 1 / 16)) + margin,
    };
    try {
      return await transport.call(
        (ctx) => {
          return transport.consul.health.service({ ...options, ctx } as typeof options);
        },
        signal,
        query.isExtra ? 'read' : 'watch',
      );
    } catch (error) {
      throw refused(error);
    }
  }

  /** A token may have been replaced: the next request takes the one that the file has now. */
  function refused(error: unknown, what = name): ConsulError {
    const known = asConsulError(error, what);
    if (known.status !== 401 && known.status !== 403) return known;
    try {
      token = currentToken(config);
      return known;
    } catch (unreadable) {
      return asConsulError(unreadable, name);
    }
  }

  return {
    name,
    async health(query, signal) {
      const reply = await ask(query, signal);
      if (query.consistency === 'stale' && isTooStale(reply)) {
        const { block: _, ...atOnce } = query;
        const fresh = await ask({ ...atOnce, consistency: 'default' }, signal);
        // An index of the leader would not fit the next stale answer.
        return { ...validAnswer(fresh, name), index: undefined };
      }
      return validAnswer(reply, name);
    },
    // See docs/discoveries/consul-empty-without-rights.md.
    async denied(things, signal) {
      const all: Readable[] = [];
      try {
        for (let i = 0; i < things.length; i += maxRights) {
          all.push(...(await deniedOf(things.slice(i, i + maxRights), signal)));
        }
        return all;
      } catch (error) {
        const known = refused(error, `${name}: POST /v1/internal/acl/authorize`);
        if (known.status === 401 && known.message.includes('ACL support disabled')) return [];
        throw known;
      }
    },
    readToken() {
      token = currentToken(config);
    },
    close: transport.close,
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

function validAnswer({ headers, body }: Reply<unknown>, name: string): HealthAnswer {
  if (isFiltered(headers)) {
    throw new ConsulError(`${name}: the token may not see all of the answer (filtered by ACLs)`);
  }
  if (!headers['content-type']?.startsWith('application/json') || !Array.isArray(body)) {
    throw new ConsulError(`${name}: the answer is not a JSON list`);
  }
  const index = headers['x-consul-index'];
  if (typeof index !== 'string' || !/^\d+$/.test(index)) {
    throw new ConsulError(`${name}: no X-Consul-Index, this cannot be watched`);
  }
  const value = BigInt(index);
  // Consul could not read it back.
  if (value > maxIndex)
    throw new ConsulError(`${name}: X-Consul-Index ${brief(index, 40)} is no index`);
  return { index: value > 0n ? value : 1n, entries: body };
}
