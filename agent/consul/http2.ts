import { hash } from 'node:crypto';
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
import { createTurns } from '../util/turns.ts';
import { connectHttp2, NoHttp2 } from './connect.ts';
import {
  answeredError,
  atOnce,
  ConsulError,
  failedError,
  type RequestError,
  wasSilent,
} from './error.ts';
import { type Connection, createSessions, isEnding } from './sessions.ts';
import type { SecureOptions } from './tls.ts';
import { parseOrText, type Reply, type Request, type Wire } from './transport.ts';
import { anew, sharedConnections, type Waits } from './wait.ts';
import type { Watches } from './watches.ts';

export interface Http2 extends Wire {
  /** How many there are. */
  readonly connections: number;
  /** As those of a transport. */
  waits(): Waits;
  rouse(): void;
  /** Ends its connections when what they carry has ended. */
  retire(): void;
}

/** How often one request may be sent. */
const mostTries = 3;

/**
 * So many watches may read at once, be it at the start or after an outage: more
 * would be no sooner answered, and their answers would lie in memory meanwhile.
 */
const mostReads = 100;

/** What a proxy says of a server that did not answer it in time, or closed the connection. */
const cutAnswers = [408, 502, 504];

/**
 * The end of a connection may be seen so much later than that of its streams, in
 * ms (docs/discoveries/consul-http2.md).
 */
const moment = 20;

/** Between two times that all are asked anew, in ms. */
const calm = 60_000;

/** What Consul held is to be asked anew: its connection is gone, or it is as good as that. */
class Lost extends Error {}

/** One for all: an error with its stack for each query that is held would be most of what that costs. */
const late = Object.assign(new Error('no answer in time'), { isTimeout: true });

/** A whole answer. */
interface Whole {
  status: number;
  headers: IncomingHttpHeaders;
  bytes: Buffer;
  /** How long it took, in ms. */
  after: number;
}

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
 * silent, whatever happened: they are asked anew, one after the other.
 *
 * @returns a wire whose `ask` may throw NoHttp2 too
 */
export function createHttp2(
  { url }: Endpoint,
  { max_connections, wait: set }: ConsulConfig,
  secure: SecureOptions,
  watches: Watches,
): Http2 {
  const base = new URL(url);
  const prefix = `${base.pathname.replace(/\/$/, '')}/v1`;
  const credentials = authorization(base);
  const sessions = createSessions(() => connectHttp2(base, secure), max_connections);
  const wait = sharedConnections(set, () => watches.followed);
  const reads = createTurns(mostReads);
  /** Those of watches that Consul holds, or that wait to be sent. */
  const held = new Set<AbortController>();
  const roused = new Lost('asked anew');
  let rousedAt = Number.NEGATIVE_INFINITY;
  /** When the next one may be asked anew, as `performance.now` counts. */
  let nextTurn = 0;

  /** @returns how long it is to the next turn to ask anew, in ms */
  function turn(): number {
    const now = performance.now();
    nextTurn = Math.max(now, nextTurn + 1000 / anew);
    return nextTurn - now;
  }

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
    if (isLost && held > 0) throw new Lost(`${what}: the connection was lost`, { cause: error });
    const isUnseen = error.reset === constants.NGHTTP2_REFUSED_STREAM;
    if ((isUnseen || isLost) && !isLast) return;
    const { isAnswered, after } = error;
    const reset = Object.assign(error, { code: 'ECONNRESET' });
    const failed = failedError(
      reset,
      { isReused: true, isAnswered, after },
      { what, held, open: 0 },
    );
    if (failed.code === 'consul/silent') wait.cut(after);
    throw failed;
  }

  async function askUntil(request: Request, signal: AbortSignal): Promise<Reply> {
    const { what, held } = request;
    for (let tries = 1; ; tries += 1) {
      const at = await connected(sessions.take(request.pool, signal), request, signal);
      try {
        const ended = () => sessions.release(at);
        const { status, after, headers, bytes } = await exchange(
          at.session,
          headersOf(request),
          request.body,
          signal,
          ended,
        );
        if (status >= 200 && status < 300) return replyOf(headers, bytes, request);
        if (status === 404 && request.mayBeAbsent) {
          return { headers, body: bodyOf(headers, bytes), isAbsent: true };
        }
        if (cutAnswers.includes(status) && wasSilent(after, held)) {
          wait.cut(after);
          throw new ConsulError('consul/silent', `${what}: ${status} after ${after} ms`, {
            status,
          });
        }
        throw answeredError({ statusCode: status, headers, body: bodyOf(headers, bytes) }, what);
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof Broken)) throw error;
        await broke(request, at, error, signal, tries === mostTries);
      }
    }
  }

  async function askInTime(
    request: Request,
    signal: AbortSignal,
    ending: AbortController,
  ): Promise<Reply> {
    const { what, held, timeout } = request;
    const timer = setTimeout(() => ending.abort(late), timeout);
    try {
      await connected(sessions.ready(ending.signal), request, ending.signal);
      if (request.isWatch) watches.admit(signal, sessions.capacity ?? 0, what);
      return await askUntil(request, ending.signal);
    } catch (error) {
      if (error !== late) throw error;
      const failure = { isReused: true, isAnswered: false, after: timeout };
      throw failedError(late, failure, { what, held, open: sessions.size });
    } finally {
      clearTimeout(timer);
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
      signal.addEventListener('abort', end, { once: true });
      if (request.isWatch) held.add(ending);
      const isRead = request.isWatch && request.held === 0;
      try {
        const send = () => askInTime(request, signal, ending);
        return await (isRead ? reads(send, ending.signal) : send());
      } catch (error) {
        if (!(error instanceof Lost)) throw error;
        if (error !== roused) await sleep(turn(), signal);
        signal.throwIfAborted();
        throw new ConsulError('consul/silent', error.message, { cause: error });
      } finally {
        held.delete(ending);
        signal.removeEventListener('abort', end);
      }
    },
    waits: wait.now,
    rouse() {
      if (performance.now() - rousedAt < calm) return;
      rousedAt = performance.now();
      for (const one of held) setTimeout(() => one.abort(roused), turn()).unref();
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
): Promise<Whole> {
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
      const after = performance.now() - began;
      if (answer === undefined || !isWhole || stream.aborted || rstCode !== 0) {
        reject(new Broken(rstCode, answer !== undefined, after, cause));
        return;
      }
      const { ':status': status = 0, ...rest } = answer;
      resolve({ status, after, headers: rest, bytes: Buffer.concat(chunks) });
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

/** @param request knows perhaps what it says */
function replyOf(headers: IncomingHttpHeaders, bytes: Buffer, { isWatch, known }: Request): Reply {
  if (!isWatch) return { headers, body: bodyOf(headers, bytes) };
  const digest = hash('sha256', bytes, 'base64');
  if (digest === known?.()) return { headers, body: undefined, digest, isKnown: true };
  return { headers, body: bodyOf(headers, bytes), digest };
}

function bodyOf(headers: IncomingHttpHeaders, bytes: Buffer): unknown {
  if (bytes.length === 0) return undefined;
  const isJson = headers['content-type']?.startsWith('application/json');
  return isJson ? parseOrText(bytes) : bytes.toString();
}
