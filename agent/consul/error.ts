import type { IncomingHttpHeaders } from 'node:http';
import { type Code, CodedError } from '../util/coded-error.ts';
import { brief, show } from '../util/text.ts';

export interface ConsulErrorOptions {
  status?: number;
  retryAfter?: number;
  cause?: unknown;
}

/** Consul could not be reached, or its answer cannot be used. Nothing may change because of one. */
export class ConsulError extends CodedError {
  override name = 'ConsulError';
  declare readonly code: Code & `consul/${string}`;
  /** undefined: no answer. */
  readonly status: number | undefined;
  /** How long Consul wants to be left alone, in ms. */
  readonly retryAfter: number;

  constructor(
    code: ConsulError['code'],
    message: string,
    { status, retryAfter = 0, cause }: ConsulErrorOptions = {},
  ) {
    super(code, message, { cause });
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** An error of a request, as the `consul` package gives it: its own or Node's. */
export interface RequestError extends Error {
  /** It is about the status of a whole answer; a `response` alone says nothing. */
  isResponse?: boolean;
  isTimeout?: boolean;
  code?: string;
  response?: Answered;
}

interface Answered {
  statusCode: number;
  headers?: IncomingHttpHeaders;
  body?: unknown;
}

/** How far a request came that failed on its connection. */
export interface Failure {
  /** Its connection had carried a request before. */
  isReused: boolean;
  /** Something of an answer came. */
  isAnswered: boolean;
  /** How long after it was sent, in ms. */
  after: number;
}

/** What a message says of a request, and what it may mean. */
export interface About {
  /** To begin the message with. */
  what: string;
  /** How long Consul may be silent, in ms. */
  held: number;
  /** How many connections there are to this Consul. */
  open: number;
}

/**
 * What cuts a query that is silent, a proxy or Consul 1.22.4, waits at least so
 * long, in ms (docs/discoveries/consul-silent-queries.md).
 */
const silence = 10_000;

/** A connection that is refused, or was closed while it was idle, says so within this time, in ms. */
export const atOnce = 1_000;

/** With so many connections open, one that is closed at once may be one too many. */
const many = 20;

/** Whether a query that ended after so long, in ms, may have been cut since it was silent. */
export function wasSilent(after: number, held: number): boolean {
  return after >= silence && after < held;
}

/** An answer with a status that was not asked for. @param what to begin the message with */
export function answeredError(answer: Answered, what: string): ConsulError {
  const { statusCode: status, headers, body } = answer;
  const text = bodyText(body);
  const message = `${what}: ${status}${text === '' ? '' : ` ${text}`}`;
  return new ConsulError(codeOf(status, text), message, {
    status,
    retryAfter: retryAfter(headers),
  });
}

function codeOf(status: number, text: string): ConsulError['code'] {
  // Consul 1.8 answers a bad filter with 500.
  if (status === 400 || text.includes('boolean expression')) return 'consul/invalid';
  if (status === 401 || status === 403) return 'consul/refused';
  if (status === 429 || status === 503) return 'consul/busy';
  return status >= 500 ? 'consul/failed' : 'consul/unusable';
}

/** A request whose connection failed. */
export function failedError(error: RequestError, failure: Failure, about: About): ConsulError {
  const [code, why] = describe(error, failure, about);
  return new ConsulError(code, `${about.what}: ${why}`, { cause: error });
}

function describe(
  { isTimeout, code = '', message }: RequestError,
  { isReused, isAnswered, after }: Failure,
  { held, open }: About,
): [code: ConsulError['code'], why: string] {
  if (isTimeout) return ['consul/timeout', 'no answer in time'];
  if (isAnswered) return ['consul/cut-off', 'the answer was cut off'];
  if (code.startsWith('HPE_')) return ['consul/unusable', 'the answer is not HTTP'];
  if (code === 'ECONNRESET' || code === 'EPIPE') {
    const why = 'the connection was closed without an answer';
    if (wasSilent(after, held)) return ['consul/silent', why];
    if (isReused || after >= atOnce || open < many) return ['consul/closed', why];
    // Up to 1.8 Consul closes a connection above its limit without a word.
    return ['consul/closed', `${why} (is http_max_conns_per_client reached?)`];
  }
  const plain = message.replace(/^consul: /, '');
  return ['consul/unreachable', plain || code || 'no connection'];
}

/** The first line of an error's body; a proxy may put JSON there. */
function bodyText(body: unknown): string {
  if (body === undefined || body === null) return '';
  if (typeof body !== 'string' && !Buffer.isBuffer(body)) return show(body);
  return brief(body.toString().trim().split('\n')[0] ?? '', 300);
}

/** @returns the seconds of `Retry-After` in ms, a minute at most; a date counts as none */
function retryAfter(headers: IncomingHttpHeaders = {}): number {
  const { 'retry-after': seconds = '' } = headers;
  return /^\d{1,9}$/.test(seconds) ? Math.min(Number(seconds) * 1000, 60_000) : 0;
}
