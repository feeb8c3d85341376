import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { AddressInfo } from 'node:net';
import type { Certificate } from '../stack/certificate.ts';

/** A request that waits for its answer. */
export interface Asked {
  url: URL;
  headers: IncomingHttpHeaders;
  session: ServerHttp2Session;
  stream: ServerHttp2Stream;
  /** @param status 200 unless it is given */
  answer(index: number, entries: unknown, status?: number): void;
}

/** A Consul over HTTP/2 that answers as told, for what the real one does not show on demand. */
export class FakeHttp2 {
  readonly #server: Http2SecureServer;
  readonly sessions = new Set<ServerHttp2Session>();
  /** Every request so far. */
  readonly asked: Asked[] = [];
  /** How many streams a session had at most. */
  most = 0;
  address = '';

  private constructor({ cert, key }: Certificate, streams: number) {
    this.#server = createSecureServer({
      cert: readFileSync(cert),
      key: readFileSync(key),
      settings: { maxConcurrentStreams: streams },
    });
    this.#server.on('session', (session) => {
      this.sessions.add(session);
      session.on('error', () => {});
      session.on('close', () => this.sessions.delete(session));
      let open = 0;
      session.on('stream', (stream, headers) => {
        open += 1;
        this.most = Math.max(this.most, open);
        stream.on('error', () => {});
        stream.on('close', () => {
          open -= 1;
        });
        this.#ask(session, stream, headers);
      });
    });
  }

  /** @param onAsked is called with each request; without it, they are held */
  static async start(
    certificate: Certificate,
    { streams = 250, host = '127.0.0.1', port = 0, onAsked = (_: Asked) => {} } = {},
  ): Promise<FakeHttp2> {
    const fake = new FakeHttp2(certificate, streams);
    fake.onAsked = onAsked;
    fake.#server.listen(port, host);
    await once(fake.#server, 'listening');
    fake.address = `https://${host.includes(':') ? `[${host}]` : host}:${fake.port}`;
    return fake;
  }

  onAsked: (asked: Asked) => void = () => {};

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Those that are held. */
  get held(): Asked[] {
    return this.asked.filter(({ stream }) => !stream.headersSent && !stream.destroyed);
  }

  #ask(session: ServerHttp2Session, stream: ServerHttp2Stream, headers: IncomingHttpHeaders): void {
    const asked: Asked = {
      url: new URL(headers[':path'] ?? '', this.address),
      headers,
      session,
      stream,
      answer(index, entries, status = 200) {
        stream.respond({
          ':status': status,
          'content-type': 'application/json',
          'x-consul-index': String(index),
        });
        stream.end(JSON.stringify(entries));
      },
    };
    this.asked.push(asked);
    this.onAsked(asked);
  }

  async stop(): Promise<void> {
    for (const session of this.sessions) session.destroy();
    if (!this.#server.listening) return;
    this.#server.close();
    await once(this.#server, 'close');
  }
}
