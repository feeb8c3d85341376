import pRetry from 'p-retry';
import { ConsulError } from '../consul/error.ts';
import { AdminError } from '../openresty/error.ts';

/** Runs work that may be repeated up to four times, about 1.5 s in all. */
export function retry<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  return pRetry(work, {
    retries: 3,
    minTimeout: 200,
    signal,
    shouldRetry: ({ error }) => isPassing(error),
  });
}

/** No answer, another writer, or a fault on the other side that may be over soon. */
function isPassing(error: unknown): boolean {
  if (error instanceof ConsulError) return !error.ourFault && (error.status ?? 500) >= 500;
  if (!(error instanceof AdminError)) return false;
  const { status } = error;
  return status === undefined || status === 412 || (status >= 500 && status !== 507);
}
