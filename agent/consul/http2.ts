import { setMaxListeners } from 'node:events';
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  constants,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
  type OutgoingHttpHeaders,
} from 'node:http2';
import type { Endpoint } from '../config/address.ts';
import type { ConsulConfig } from '../config/config.ts';
import { sleep } from '../util/backoff.ts';
import { connectHttp2, NoHttp2 } from './connect.ts';
import { answeredError, atOnce, ConsulError, failedError, type RequestError } from './error.ts';
import { type Connection, createSessions, isEnding } from './sessions.ts';
import type { SecureOptions } from './tls.ts';
import { parseOrText, type Reply, type Request, type Wire } from './transport.ts';
import type { Watches } from './watches.ts';

export interface Http2 extends Wire {
  /** How many there are. */
  readonly connections: number;
  /** Ends its connections when what they carry has ended. */
  retire(): void;
}

/** How often one request may be sent. */
const mostTries = 3;

/** Over so long the queries of a connection that was lost are spread, in ms for each. */
const spread = 4;

/**
 * The end of a connection may be seen so much later than that of its streams, in
 * ms (docs/discoveries/consul-http2.md).
 */
const moment = 20;

/** The stream of a request has ended, and no whole answer came. */
class Broken extends Error {
  /** Of RST_STREAM. */
  readonly reset: number | undefined;
  /** Something of an answer came. */
  readonly isAnswered: boolean;
  /** How long after the request was sent, in ms. */
  readonly after: number;

  constructor(reset: number | undefined, isAnswered: boolean, after: number, cause?: unknown) {
    super('the stream was reset', { cause });
    this.reset = reset;
    this.isAnswered = isAnswered;
    this.after = after;
  }
}

/**
 * Sends requests over HTTP/2, many at once on each of a few connections.
 *
 * The queries of a connection that is lost while Consul holds them have been
 * silent, whatever happened: they are asked again, not all at once.
 *
 * @returns a wire whose `ask` may throw NoHttp2 too
 */
export function createHttp2(
  { url }: Endpoint,
  { max_connections }: ConsulConfig,
  secure: SecureOptions,
  watches: Watches,
): Http2 {
  const base = new URL(url);
  const prefix = `${base.pathname.replace(/\/$/, '')}/v1`;
  const credentials = authorization(base);
  const sessions = createSessions(() => connectHttp2(base, secure), max_connections);

  function headersOf({ method, path, token, body }: Request) {
    return {
      ...credentials,
      ':method': method,
      ':path': prefix + path,
      ...(token === undefined ? {} : { 'x-consul-token': token }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    };
  }

  /** Waits for a connection. */
  async function connected<T>(
    waits: Promise<T>,
    request: Request,
    signal: AbortSignal,
  ): Promise<T> {
    try {
      return await waits;
    } catch (error) {
      if (signal.aborted || error instanceof NoHttp2) throw error;
      const { what, held } = request;
      const about = { what, held, open: sessions.size };
      const failure = { isReused: false, isAnswered: false, after: 0 };
      throw failedError(error as RequestError, failure, about);
    }
  }

  /** @throws what is to be said of it; returns when it is to be sent again */
  async function broke(
    { what, held }: Request,
    at: Connection,
    error: Broken,
    signal: AbortSignal,
    isLast: boolean,
  ): Promise<void> {
    const { session, since } = at;
    if (!isEnding(session)) await sleep(moment, signal);
    signal.throwIfAborted();
    const isLost = isEnding(session) && performance.now() - since >= atOnce;
    if (isLost && held > 0) {
      await sleep(Math.random() * (at.lost ?? 1) * spread, signal);
      signal.throwIfAborted();
      throw new ConsulError('consul/silent', `${what}: the connection was lost`, { cause: error });
    }
    const isUnseen = error.reset === constants.NGHTTP2_REFUSED_STREAM;
    if ((isUnseen || isLost) && !isLast) return;
    const { isAnswered, after } = error;
    const reset = Object.assign(error, { code: 'ECONNRESET' });
    throw failedError(reset, { isReused: true, isAnswered, after }, { what, held, open: 0 });
  }

  async function askUntil(request: Request, signal: AbortSignal): Promise<Reply> {
    for (let tries = 1; ; tries += 1) {
      const at = await connected(sessions.take(request.pool, signal), request, signal);
      try {
        const ended = () => sessions.release(at);
        const { status, ...reply } = await exchange(
          at.session,
          headersOf(request),
          request.body,
          signal,
          ended,
        );
        if (status >= 200 && status < 300) return reply;
        throw answeredError({ statusCode: status, ...reply }, request.what);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof Broken)) throw error;
        await broke(request, at, error, signal, tries === mostTries);
      }
    }
  }

  return {
    get connections() {
      return sessions.size;
    },
    async ask(request, signal) {
      signal.throwIfAborted();
      // As many requests as there are services may end with one signal.
      setMaxListeners(0, signal);
      const ending = new AbortController();
      const end = () => ending.abort(signal.reason);
      const late = Object.assign(new Error('no answer in time'), { isTimeout: true });
      const timer = setTimeout(() => ending.abort(late), request.timeout);
      signal.addEventListener('abort', end, { once: true });
      try {
        await connected(sessions.ready(ending.signal), request, ending.signal);
        if (request.isWatch) watches.admit(signal, sessions.capacity ?? 0, request.what);
        return await askUntil(request, ending.signal);
      } catch (error) {
        if (error !== late) throw error;
        const { what, held } = request;
        const failure = { isReused: true, isAnswered: false, after: request.timeout };
        throw failedError(late, failure, { what, held, open: sessions.size });
      } finally {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
      }
    },
    retire: sessions.retire,
    close: sessions.close,
  };
}

/** To what lies before Consul, when the address has a name and a password. */
function authorization({ username, password }: URL): { authorization?: string } {
  if (username === '' && password === '') return {};
  const plain = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  return { authorization: `Basic ${Buffer.from(plain).toString('base64')}` };
}

/**
 * One request and its answer.
 *
 * @param ended is called when its stream has ended, which may be later
 * @throws Broken without a whole answer, the signal's reason when that ended it
 */
function exchange(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body: unknown,
  signal: AbortSignal,
  ended: () => void,
): Promise<Reply & { status: number }> {
  const began = performance.now();
  const stream = start(session, headers, body, ended);
  return new Promise((resolve, reject) => {
    let answer: (IncomingHttpHeaders & IncomingHttpStatusHeader) | undefined;
    let cause: unknown;
    let isWhole = false;
    const chunks: Buffer[] = [];
    const cancel = () => {
      stream.close(constants.NGHTTP2_CANCEL);
      reject(signal.reason);
    };
    signal.addEventListener('abort', cancel, { once: true });
    stream.on('response', (headers) => {
      answer = headers;
    });
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('end', () => {
      isWhole = true;
    });
    stream.on('error', (error) => {
      cause = error;
    });
    stream.on('close', () => {
      signal.removeEventListener('abort', cancel);
      // An `end` alone does not say that it is whole: docs/discoveries/consul-http2.md.
      const { rstCode } = stream;
      if (answer === undefined || !isWhole || stream.aborted || rstCode !== 0) {
        const after = performance.now() - began;
        reject(new Broken(rstCode, answer !== undefined, after, cause));
        return;
      }
      const { ':status': status = 0, ...rest } = answer;
      resolve({ status, headers: rest, body: bodyOf(rest, Buffer.concat(chunks)) });
    });
  });
}

/** @throws Broken when the connection takes no more @throws TypeError for headers that cannot be sent */
function start(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body: unknown,
  ended: () => void,
): ClientHttp2Stream {
  try {
    const stream = session.request(headers, { endStream: body === undefined });
    stream.on('close', ended);
    if (body !== undefined) stream.end(JSON.stringify(body));
    return stream;
  } catch (error) {
    ended();
    if (!isEnding(session)) throw error;
    throw new Broken(constants.NGHTTP2_REFUSED_STREAM, false, 0, error);
  }
}

function bodyOf(headers: IncomingHttpHeaders, bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  const isJson = headers['content-type']?.startsWith('application/json');
  return isJson ? parseOrText(bytes) : bytes.toString();
}
