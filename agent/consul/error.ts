import type { IncomingHttpHeaders } from 'node:http';
import { brief, show } from '../util/text.ts';

/** Consul could not be reached, or its answer cannot be used. Nothing may change because of one. */
export class ConsulError extends Error {
  override name = 'ConsulError';
  /** undefined: no answer. */
  readonly status: number | undefined;
  /** The request itself is wrong, so asking again soon is of no use. */
  readonly ourFault: boolean;
  /** How long Consul wants to be left alone, in ms. */
  readonly retryAfter: number;

  constructor(message: string, status?: number, ourFault = false, retryAfter = 0) {
    super(message);
    this.status = status;
    this.ourFault = ourFault;
    this.retryAfter = retryAfter;
  }

  /** It has too much to do (429, 503): a read that its leader must answer would add to that. */
  get isBusy(): boolean {
    return this.status === 429 || this.status === 503;
  }
}

interface PapiError extends Error {
  isResponse?: boolean;
  isTimeout?: boolean;
  code?: string;
  response?: { statusCode: number; headers?: IncomingHttpHeaders; body?: unknown };
}

/**
 * Turns an error of the `consul` package into one with a plain message.
 *
 * @param address of Consul, to begin the message with
 */
export function asConsulError(error: unknown, address: string): ConsulError {
  if (error instanceof ConsulError) return error;
  const { isResponse, isTimeout, response, code, message } = error as PapiError;
  if (isResponse && response !== undefined) {
    const { statusCode } = response;
    const text = bodyText(response.body);
    return new ConsulError(
      `${address}: ${statusCode}${text === '' ? '' : ` ${text}`}`,
      statusCode,
      // Consul 1.8 answers a bad filter with 500.
      statusCode === 400 || text.includes('boolean expression'),
      retryAfter(response.headers),
    );
  }
  if (isTimeout) return new ConsulError(`${address}: no answer in time`);
  // Up to 1.8 Consul closes a connection above its limit without a word.
  const hint = code === 'ECONNRESET' ? ' (is http_max_conns_per_client reached?)' : '';
  const why = message.replace(/^(consul: |health\.service: )+/, '');
  return new ConsulError(`${address}: ${why || code || 'no connection'}${hint}`);
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
