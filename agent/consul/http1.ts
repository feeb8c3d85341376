import { EventEmitter, setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createSecureContext, type SecureContext } from 'node:tls';
import Consul from 'consul';
import type { Endpoint } from '../config/address.ts';
import { type ConsulConfig, spareConnections } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';
import { answeredError, atOnce, type Failure, failedError, type RequestError } from './error.ts';

/**
 * The `consul` package with what its types leave out and its faults kept away
 * from the rest: cancelling, response headers, unix sockets, the namespace
 * (which it drops), IPv6 addresses and answers that are cut off (for which it waits for ever).
 */
export interface Transport {
  /** How a message calls it. */
  name: string;
  consul: Consul;
  /** For what the package has no function. */
  send(method: 'get' | 'post', path: string, request: Sent): Promise<unknown>;
  /**
   * Runs one call of the package, ended by the signal. One whose connection was
   * closed while it was idle is made again.
   *
   * @throws ConsulError when it fails, the signal's reason when that ended it;
   *   an error of ours stays what it is
   */
  call<T>(
    request: (ctx: EventEmitter) => Promise<unknown>,
    signal: AbortSignal,
    options: CallOptions,
  ): Promise<Reply<T>>;
  close(): void;
}

export interface CallOptions {
  pool: Pool;
  /** How long Consul may hold it, in ms. */
  held: number;
  /** To begin the message of an error with. */
  what: string;
}

export interface Sent {
  headers: Record<string, string>;
  query: Record<string, string>;
  /** Sent as JSON; undefined: none. */
  body: unknown;
  /** In ms. */
  timeout: number;
  ctx: EventEmitter;
}

export interface Reply<T> {
  headers: http.IncomingHttpHeaders;
  body: T;
}

/** Which connections a call may use: those of watches, or those kept free for other reads. */
export type Pool = 'watch' | 'read';

interface Exchange {
  ctx?: { pool?: Pool };
  req: { path: string; hostname?: string; agent?: http.Agent };
  transport: Pick<typeof http, 'request'>;
}

/** What the package has from the HTTP client that it is made of. */
interface HttpClient {
  _ext(event: 'onRequest', hook: (exchange: Exchange, next: () => void) => void): void;
  _get(request: object): Promise<http.IncomingMessage & { body: unknown }>;
  _post: HttpClient['_get'];
}

/** @throws ConfigError when a TLS file cannot be used */
export function createTransport(endpoint: Endpoint, config: ConsulConfig): Transport {
  const { url, socketPath } = endpoint;
  const agents = createAgents(endpoint, config);
  /** Of the errors of requests: what else throws is a fault of ours. */
  const failures = new WeakMap<Error, Failure>();
  const options = {
    baseUrl: `${url}/v1`,
    // An error of a proxy may call itself JSON and not be it: then it is text.
    decoders: { 'application/json': parseOrText },
    ...(socketPath === undefined ? {} : { socketPath }),
  };
  const consul = new Consul(options as ConstructorParameters<typeof Consul>[0]);
  const client = consul as unknown as HttpClient;
  client._ext('onRequest', (exchange, next) => {
    if (config.namespace !== undefined) {
      const { path } = exchange.req;
      const separator = path.includes('?') ? '&' : '?';
      exchange.req.path = `${path}${separator}ns=${encodeURIComponent(config.namespace)}`;
    }
    // A URL has an IPv6 address in brackets, a socket takes it without.
    const host = exchange.req.hostname;
    if (host?.startsWith('[')) exchange.req.hostname = host.slice(1, -1);
    exchange.req.agent = agents[exchange.ctx?.pool ?? 'read'];
    exchange.transport = watched(exchange.transport, failures);
    next();
  });

  async function callOnce<T>(
    request: (ctx: EventEmitter) => Promise<unknown>,
    signal: AbortSignal,
    pool: Pool,
  ): Promise<Reply<T>> {
    const ctx = Object.assign(new EventEmitter(), { includeResponse: true, pool });
    const cancel = () => ctx.emit('cancel');
    signal.addEventListener('abort', cancel, { once: true });
    try {
      const [response, body] = (await request(ctx)) as [http.IncomingMessage, T];
      return { headers: response.headers, body };
    } finally {
      signal.removeEventListener('abort', cancel);
    }
  }

  return {
    name: `Consul at ${endpoint.name}`,
    consul,
    async send(method, path, request) {
      const response = await client[`_${method}`]({ ...request, path, type: 'json' });
      return [response, response.body];
    },
    async call(request, signal, { pool, held, what }) {
      signal.throwIfAborted();
      // As many calls as there are services may end with one signal.
      setMaxListeners(0, signal);
      for (;;) {
        try {
          return await callOnce(request, signal, pool);
        } catch (error) {
          signal.throwIfAborted();
          const { isResponse, response } = error as RequestError;
          if (isResponse && response !== undefined) throw answeredError(response, what);
          const failure = failures.get(error as Error);
          if (failure === undefined) throw error;
          const about = { what, held, open: openConnections(agents) };
          const known = failedError(error as RequestError, failure, about);
          const wasIdle = failure.isReused && failure.after < atOnce;
          if (known.code !== 'consul/closed' || !wasIdle) throw known;
        }
      }
    },
    close() {
      for (const agent of Object.values(agents)) agent.destroy();
    },
  };
}

/** Never more connections than the budget: blocking queries leave some of it to other reads. */
function createAgents(
  endpoint: Endpoint,
  { tls, max_connections }: ConsulConfig,
): Record<Pool, http.Agent> {
  const isTls = endpoint.url.startsWith('https:');
  const secure = {
    ...(isTls ? { secureContext: createContext(tls) } : {}),
    ...(tls.server_name === undefined ? {} : { servername: tls.server_name }),
    rejectUnauthorized: tls.verify,
  };
  function create(maxSockets: number): http.Agent {
    const pool = { keepAlive: true, maxSockets };
    return isTls ? new https.Agent({ ...pool, ...secure }) : new http.Agent(pool);
  }
  return { watch: create(max_connections - spareConnections), read: create(spareConnections) };
}

function openConnections(agents: Record<Pool, http.Agent>): number {
  const sockets = Object.values(agents).flatMap((agent) => Object.values(agent.sockets).flat());
  return sockets.length;
}

function parseOrText(body: Buffer | string): unknown {
  const text = body.toString();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** @throws ConfigError when a file cannot be read or used */
function createContext({ ca_file, cert_file, key_file }: ConsulConfig['tls']): SecureContext {
  const files = { ca: ca_file, cert: cert_file, key: key_file };
  try {
    const contents = Object.entries(files).flatMap(([option, file]) =>
      file === undefined ? [] : [[option, readFileSync(file)]],
    );
    return createSecureContext(Object.fromEntries(contents));
  } catch (error) {
    const named = Object.values(files).filter((file) => file !== undefined);
    throw new ConfigError(
      `consul.tls: ${named.join(', ')}: ${(error as Error).message}`,
      'config/unreadable',
      error,
    );
  }
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
