import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createServer as createSecureServer, type Server as SecureServer } from 'node:https';
import type { Certificate } from '../stack/certificate.ts';
import { close, listen } from '../stack/server.ts';

/**
 * Answers as told, for what a real Consul does not show on demand: an index
 * that goes back, a body that is cut off, headers of newer versions.
 */
export class FakeConsul {
  readonly #server: Server | SecureServer;
  readonly #script: Reply[];
  address = '';
  /** Every request so far. */
  readonly requests: { url: URL; token: string | undefined }[] = [];

  private constructor(script: Reply[], certificate: Certificate | undefined) {
    this.#script = script;
    const answer = (request: IncomingMessage, response: ServerResponse) => {
      this.#answer(request, response);
    };
    this.#server =
      certificate === undefined
        ? createServer(answer)
        : createSecureServer(read(certificate), answer);
  }

  /**
   * @param script one reply for each request; after the last, requests are held
   * @param certificate for TLS, over which it speaks HTTP/1.1 alone
   */
  static async start(
    script: Reply[],
    { certificate, port }: { certificate?: Certificate; port?: number } = {},
  ): Promise<FakeConsul> {
    const fake = new FakeConsul(script, certificate);
    const scheme = certificate === undefined ? 'http' : 'https';
    fake.address = `${scheme}://${await listen(fake.#server, '127.0.0.1', port)}`;
    return fake;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', this.address);
    const token = request.headers['x-consul-token'];
    this.requests.push({ url, token: typeof token === 'string' ? token : undefined });
    this.#script[this.requests.length - 1]?.(response);
  }

  /** The `index` of each request; undefined where it had none. */
  get indexes(): (string | undefined)[] {
    return this.requests.map(({ url }) => url.searchParams.get('index') ?? undefined);
  }

  /** The `wait` of each request, in ms; undefined where it had none. */
  get waits(): (number | undefined)[] {
    return this.requests.map(({ url }) => {
      const [, ms] = /^(\d+)ms$/.exec(url.searchParams.get('wait') ?? '') ?? [];
      return ms === undefined ? undefined : Number(ms);
    });
  }

  stop(): Promise<void> {
    return close(this.#server);
  }
}

function read({ cert, key }: Certificate): { cert: Buffer; key: Buffer } {
  return { cert: readFileSync(cert), key: readFileSync(key) };
}

export type Reply = (response: ServerResponse) => void;

/** A 200 with entries. */
export function ok(index: number | string, entries: unknown, headers: object = {}): Reply {
  return text(index, JSON.stringify(entries), headers);
}

/** A 200 with a body of JSON as it is written, for what `JSON.stringify` cannot write. */
export function text(index: number | string, body: string, headers: object = {}): Reply {
  return (response) => {
    const all = { 'content-type': 'application/json', 'x-consul-index': String(index), ...headers };
    response.writeHead(200, all).end(body);
  };
}

export function error(status: number, text: string, headers: object = {}): Reply {
  return (response) => {
    // As the real one: its errors carry an index too.
    response.writeHead(status, { 'x-consul-index': '1', ...headers }).end(text);
  };
}

/** Says that more will come, and closes. */
export function cutOff(index: number): Reply {
  return (response) => {
    const headers = { 'content-type': 'application/json', 'x-consul-index': String(index) };
    response.writeHead(200, { ...headers, 'content-length': '1000' });
    response.write('[{"Node":', () => response.destroy());
  };
}
