/** Consul could not be reached, or its answer cannot be used. Nothing may change because of one. */
export class ConsulError extends Error {
  override name = 'ConsulError';
  /** undefined: no answer. */
  readonly status: number | undefined;
  /** The request itself is wrong, so asking again soon is of no use. */
  readonly ourFault: boolean;

  constructor(message: string, status?: number, ourFault = false) {
    super(message);
    this.status = status;
    this.ourFault = ourFault;
  }
}

interface PapiError extends Error {
  isResponse?: boolean;
  isTimeout?: boolean;
  code?: string;
  response?: { statusCode: number; body?: unknown };
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
    );
  }
  if (isTimeout) return new ConsulError(`${address}: no answer in time`);
  // Up to 1.8 Consul closes a connection above its limit without a word.
  const hint = code === 'ECONNRESET' ? ' (is http_max_conns_per_client reached?)' : '';
  const why = message.replace(/^(consul: |health\.service: |catalog\.node\.list: )+/, '');
  return new ConsulError(`${address}: ${why || code || 'no connection'}${hint}`);
}

function bodyText(body: unknown): string {
  if (typeof body !== 'string' && !Buffer.isBuffer(body)) return '';
  return body.toString().trim().split('\n')[0]?.slice(0, 300) ?? '';
}
