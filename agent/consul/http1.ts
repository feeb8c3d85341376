import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import { createSecureContext, type SecureContext } from 'node:tls';
import Consul from 'consul';
import type { ConsulConfig } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';

/**
 * The `consul` package with what its types leave out and its faults kept away
 * from the rest: cancelling, response headers, unix sockets, the namespace
 * (which it drops), IPv6 addresses and answers that are cut off (for which it waits for ever).
 */
export interface Transport {
  consul: Consul;
  /** Runs one call of the package, ended by the signal. */
  call<T>(request: (ctx: EventEmitter) => Promise<unknown>, signal: AbortSignal): Promise<Reply<T>>;
  close(): void;
}

export interface Reply<T> {
  headers: http.IncomingHttpHeaders;
  body: T;
}

interface Exchange {
  req: { path: string; hostname?: string };
  transport: Pick<typeof http, 'request'>;
}

interface Extensible {
  _ext(event: 'onRequest', hook: (exchange: Exchange, next: () => void) => void): void;
}

/** @throws ConfigError when a TLS file cannot be used */
export function createTransport(config: ConsulConfig): Transport {
  const { url, socketPath } = config.endpoint;
  const agent = createAgent(config);
  const options = {
    baseUrl: `${url}/v1`,
    agent,
    ...(socketPath === undefined ? {} : { socketPath }),
  };
  const consul = new Consul(options);
  (consul as unknown as Extensible)._ext('onRequest', (exchange, next) => {
    if (config.namespace !== undefined) {
      const { path } = exchange.req;
      const separator = path.includes('?') ? '&' : '?';
      exchange.req.path = `${path}${separator}ns=${encodeURIComponent(config.namespace)}`;
    }
    // A URL has an IPv6 address in brackets, a socket takes it without.
    const host = exchange.req.hostname;
    if (host?.startsWith('[')) exchange.req.hostname = host.slice(1, -1);
    exchange.transport = failingWhenCutOff(exchange.transport);
    next();
  });

  return {
    consul,
    async call<T>(request: (ctx: EventEmitter) => Promise<unknown>, signal: AbortSignal) {
      signal.throwIfAborted();
      const ctx = Object.assign(new EventEmitter(), { includeResponse: true });
      const cancel = () => ctx.emit('cancel');
      signal.addEventListener('abort', cancel, { once: true });
      try {
        const [response, body] = (await request(ctx)) as [http.IncomingMessage, T];
        return { headers: response.headers, body };
      } finally {
        signal.removeEventListener('abort', cancel);
      }
    },
    close: () => agent.destroy(),
  };
}

function createAgent({ endpoint, tls, max_connections }: ConsulConfig): http.Agent {
  const pool = { keepAlive: true, maxSockets: max_connections };
  if (!endpoint.url.startsWith('https:')) return new http.Agent(pool);
  return new https.Agent({
    ...pool,
    secureContext: createContext(tls),
    ...(tls.server_name === undefined ? {} : { servername: tls.server_name }),
    rejectUnauthorized: tls.verify,
  });
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
    throw new ConfigError(`consul.tls: ${named.join(', ')}: ${(error as Error).message}`);
  }
}

/** The package does not look at an answer that ends early; as an error of the request it does. */
function failingWhenCutOff(transport: Exchange['transport']): Exchange['transport'] {
  function request(options: http.RequestOptions): http.ClientRequest {
    const sent = transport.request(options);
    sent.on('response', (response) => {
      response.on('close', () => {
        if (!response.complete) sent.emit('error', new Error('the answer was cut off'));
      });
    });
    return sent;
  }
  return { request } as Exchange['transport'];
}
