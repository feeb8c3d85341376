import { EventEmitter, setMaxListeners } from 'node:events';
import http from 'node:http';
import https from 'node:https';
import Consul from 'consul';
import type { Endpoint } from '../config/address.ts';
import { type ConsulConfig, spareConnections } from '../config/config.ts';
import { Crowded } from './crowd.ts';
import { answeredError, atOnce, type Failure, failedError, type RequestError } from './error.ts';
import type { SecureOptions } from './tls.ts';
import { type Pool, parseOrText, type Reply, type Request, type Wire } from './transport.ts';
import type { Watches } from './watches.ts';

interface Exchange {
  ctx?: { pool?: Pool };
  req: { path: string; hostname?: string; agent?: http.Agent };
  transport: Pick<typeof http, 'request'>;
}

/** What the package has from the HTTP client that it is made of. */
interface HttpClient {
  _ext(event: 'onRequest', hook: (exchange: Exchange, next: () => void) => void): void;
  _get(request: object): Promise<Answer>;
  _post: HttpClient['_get'];
}

type Answer = http.IncomingMessage & { body: unknown };

export interface Http1 extends Wire {
  /** Ends the queries that yield: their connections are needed. */
  release(): void;
}

/**
 * Sends requests with the `consul` package, whose faults it keeps away from the
 * rest: unix sockets that its types leave out, IPv6 addresses, and answers that
 * are cut off, for which it waits for ever. Each takes a connection.
 *
 * @param secure undefined: without TLS
 */
export function createHttp1(
  { url, socketPath }: Endpoint,
  { max_connections }: ConsulConfig,
  secure: SecureOptions | undefined,
  watches: Watches,
): Http1 {
  const agents = createAgents(max_connections, secure);
  /** Of the errors of requests: what else throws is a fault of ours. */
  const failures = new WeakMap<Error, Failure>();
  /** Of the queries that yield, what ends each. */
  const yielding = new Set<() => void>();
  const options = {
    baseUrl: `${url}/v1`,
    decoders: { 'application/json': parseOrText },
    ...(socketPath === undefined ? {} : { socketPath }),
  };
  const consul = new Consul(options as ConstructorParameters<typeof Consul>[0]);
  const client = consul as unknown as HttpClient;
  client._ext('onRequest', (exchange, next) => {
    // A URL has an IPv6 address in brackets, a socket takes it without.
    const host = exchange.req.hostname;
    if (host?.startsWith('[')) exchange.req.hostname = host.slice(1, -1);
    exchange.req.agent = agents[exchange.ctx?.pool ?? 'read'];
    exchange.transport = watched(exchange.transport, failures);
    next();
  });

  async function askOnce(request: Request, signal: AbortSignal): Promise<Reply> {
    const { path, token, body, timeout, pool, yields } = request;
    const ctx = Object.assign(new EventEmitter(), { pool });
    let isReleased = false;
    const cancel = () => ctx.emit('cancel');
    const release = () => {
      isReleased = true;
      cancel();
    };
    if (yields) yielding.add(release);
    signal.addEventListener('abort', cancel, { once: true });
    const headers = token === undefined ? {} : { 'x-consul-token': token };
    const send = request.method === 'GET' ? '_get' : '_post';
    try {
      return await client[send]({ path, headers, body, type: 'json', timeout, ctx });
    } catch (error) {
      throw isReleased ? new Crowded() : error;
    } finally {
      yielding.delete(release);
      signal.removeEventListener('abort', cancel);
    }
  }

  return {
    async ask(request, signal) {
      signal.throwIfAborted();
      // As many requests as there are services may end with one signal.
      setMaxListeners(0, signal);
      const { what, held, isWatch } = request;
      if (isWatch) watches.admit(signal, Number.POSITIVE_INFINITY, what);
      for (;;) {
        try {
          return await askOnce(request, signal);
        } catch (error) {
          signal.throwIfAborted();
          const { isResponse, response } = error as RequestError;
          if (isResponse && response !== undefined) {
            if (response.statusCode !== 404 || !request.mayBeAbsent) {
              throw answeredError(response, what);
            }
            const { headers = {}, body } = response;
            return { headers, body, isAbsent: true };
          }
          const failure = failures.get(error as Error);
          if (failure === undefined) throw error;
          const about = { what, held, open: openConnections(agents) };
          const known = failedError(error as RequestError, failure, about);
          const wasIdle = failure.isReused && failure.after < atOnce;
          if (known.code !== 'consul/closed' || !wasIdle) throw known;
        }
      }
    },
    release() {
      for (const release of [...yielding]) release();
    },
    close() {
      for (const agent of Object.values(agents)) agent.destroy();
    },
  };
}

/** So many idle connections are kept: with doorbells, few are needed after the first reads. */
const mostIdle = 32;

/** Never more connections than the budget: blocking queries leave some of it to other reads. */
function createAgents(
  max_connections: number,
  secure: SecureOptions | undefined,
): Record<Pool, http.Agent> {
  function create(maxSockets: number): http.Agent {
    const pool = { keepAlive: true, maxSockets, maxFreeSockets: mostIdle };
    return secure ? new https.Agent({ ...pool, ...secure }) : new http.Agent(pool);
  }
  return { watch: create(max_connections - spareConnections), read: create(spareConnections) };
}

function openConnections(agents: Record<Pool, http.Agent>): number {
  const sockets = Object.values(agents).flatMap((agent) => Object.values(agent.sockets).flat());
  return sockets.length;
}

/**
 * Notes how far a request came when it fails. The package does not look at an
 * answer that ends early; as an error of the request it does.
 */
function watched(
  transport: Exchange['transport'],
  failures: WeakMap<Error, Failure>,
): Exchange['transport'] {
  function request(options: http.RequestOptions): http.ClientRequest {
    const began = performance.now();
    const sent = transport.request(options);
    let isAnswered = false;
    sent.on('error', (error) => {
      const after = performance.now() - began;
      failures.set(error, { isReused: sent.reusedSocket, isAnswered, after });
    });
    sent.on('response', (response) => {
      isAnswered = true;
      response.on('close', () => {
        if (!response.complete) sent.emit('error', new Error('the answer was cut off'));
      });
    });
    return sent;
  }
  return { request } as Exchange['transport'];
}
