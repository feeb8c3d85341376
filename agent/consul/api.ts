import { type ConsulConfig, spareConnections } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';
import { show } from '../util/text.ts';
import { readToken } from '../util/token-file.ts';
import { createAddresses, type Moved } from './addresses.ts';
import type { Index } from './blocking-query.ts';
import { createDoorbells, type Doorbells } from './doorbells/doorbells.ts';
import { ConsulError } from './error.ts';
import { createPlanReport, type Planned, type Planning } from './plan.ts';
import { createTransport } from './protocol.ts';
import { isTooStale, type Query, type Read, type Valid, validAnswer } from './query.ts';
import { deniedAt, type Readable } from './rights.ts';
import { kvPath, type Place, pathOf, placeIn, type Reply, type Transport } from './transport.ts';
import { ownConnection, type Waits } from './wait.ts';

export interface HealthQuery extends Query {
  service: string;
  filter: string | undefined;
  /** Gives the digest of an answer, of which an equal one need not be read. */
  known?: () => string | undefined;
}

export interface KvQuery extends Query {
  key: string;
  /** All keys that begin with it. */
  isPrefix: boolean;
}

export interface KvAnswer {
  /** undefined: the next query cannot build on it. */
  index: Index | undefined;
  /** As Consul sent them; none where there is no such key. */
  pairs: unknown[];
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
  /** What is stored. @throws ConsulError for all but a whole, valid answer */
  kv(query: KvQuery, signal: AbortSignal): Promise<KvAnswer>;
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
  denied(things: Readable[], signal: AbortSignal, place?: Place): Promise<Readable[]>;
  /** How long Consul may hold a query of a watch now. */
  waits(): Waits;
  /** Uses the token that the file has now. @throws Error when it cannot be read */
  readToken(): void;
  close(): void;
}

/** Beyond what Consul may take, in ms. */
const margin = 10_000;
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
  /** Without HTTP/2, how long Consul may hold a query, in ms. */
  const { most: wait } = ownConnection(config.wait).now();
  const doorbells = new Map<Transport, Doorbells>();
  const transports = config.endpoints.map((endpoint) => {
    const transport = createTransport(endpoint, config, () => {
      plan.changed();
      doorbells.get(transport)?.replanned();
    });
    doorbells.set(transport, openDoorbells(transport));
    return transport;
  });
  const addresses = createAddresses(transports, moved);
  const plan = createPlanReport(planning, wait, planned);
  const closing = new AbortController();
  let token = currentToken(config);

  function planning(): Planning {
    const { current } = addresses;
    return { name: current.name, plan: current.plan, deaf: doorbells.get(current)?.deaf };
  }

  function openDoorbells(transport: Transport): Doorbells {
    const { consistency = 'stale', max_connections } = config;
    return createDoorbells({
      ...{ transport, wait },
      connections: max_connections - spareConnections,
      ask: (read, asking, signal) => askAt(transport, read, { consistency, ...asking }, signal),
      changed: () => plan.changed(),
    });
  }

  function send(
    transport: Transport,
    read: Read,
    { consistency, isExtra, isWatch = false, yields = false, block, place = {} }: Query,
    signal: AbortSignal,
  ): Promise<Reply> {
    // Consul adds up to a sixteenth to the wait (its docs on blocking queries).
    const held = Math.ceil((block?.wait ?? 0) * (1 + 1 / 16));
    const path = pathOf(read.path, placeIn(config, place), {
      ...(consistency === 'default' ? {} : { [consistency]: '1' }),
      ...{ filter: read.filter, ...read.parameters },
      ...(block === undefined ? {} : { index: String(block.index.value), wait: `${block.wait}ms` }),
    });
    const pool = isExtra ? 'read' : 'watch';
    const rest = { token, pool, held, timeout: held + margin, what: transport.name } as const;
    const { known, mayBeAbsent = false } = read;
    const asked = { method: 'GET', path, isWatch, yields, known, mayBeAbsent } as const;
    return transport.ask({ ...asked, ...rest }, signal);
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

  /** @param service of a watch that doorbells may carry */
  async function ask(
    read: Read,
    query: Query,
    signal: AbortSignal,
    service?: string,
  ): Promise<Valid> {
    const { block: _, ...atOnce } = query;
    const look = { ...atOnce, consistency: 'consistent' as const, isExtra: true };
    try {
      return await addresses.ask(
        (transport) => {
          const carrier = doorbells.get(transport);
          return service === undefined || carrier === undefined
            ? askAt(transport, read, query, signal)
            : carrier.ask(service, read, query, signal);
        },
        (other) => askAt(other, read, look, closing.signal),
      );
    } catch (error) {
      takeNewToken(error);
      throw error;
    }
  }

  /** Whether a place is the configured one, said or not. */
  function isHere(place: Place = {}): boolean {
    const configured: Place = config;
    const said = Object.entries(placeIn(config, place)) as [keyof Place, string | undefined][];
    return said.every(([key, value]) => value === configured[key]);
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
      // The doorbells are of the configured place.
      const watched = query.isWatch && isHere(query.place) ? service : undefined;
      const { index, body, digest } = await ask(read, query, signal, watched).catch((error) => {
        throw filter !== undefined && isInvalid(error) ? refusedFilter(filter, error) : error;
      });
      // Without one that is known there is a body.
      return { index, entries: body as unknown[], digest };
    },
    async kv({ key, isPrefix, ...query }, signal) {
      const path = kvPath(key);
      const parameters: Record<string, string> = isPrefix ? { recurse: '1' } : {};
      const read = {
        path,
        parameters,
        isWhole: true,
        mayBeAbsent: true,
        expected: 'list',
      } as const;
      const { index, body } = await ask(read, query, signal);
      return { index, pairs: body as unknown[] };
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
    async denied(things, signal, place = {}) {
      const where = placeIn(config, place);
      try {
        return await addresses.ask((at) => deniedAt(at, where, token, things, signal));
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
      for (const one of doorbells.values()) one.stop();
      for (const transport of transports) transport.close();
    },
  };
}

function currentToken({ token_file, token }: ConsulConfig): string | undefined {
  return token_file === undefined ? token : readToken(token_file);
}

function isInvalid(error: unknown): error is ConsulError {
  return error instanceof ConsulError && error.code === 'consul/invalid';
}

/** Most probably it is the filter that is wrong. */
function refusedFilter(filter: string, cause: ConsulError): ConsulError {
  const { message, status } = cause;
  const options = { cause, ...(status === undefined ? {} : { status }) };
  return new ConsulError('consul/invalid', `filter ${show(filter)}: ${message}`, options);
}
