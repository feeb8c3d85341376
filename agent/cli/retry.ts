import pRetry from 'p-retry';
import { passes } from '../util/coded-error.ts';

/** Runs work that may be repeated up to four times, about 1.5 s in all. */
export function retry<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T> {
  return pRetry(work, {
    retries: 3,
    minTimeout: 200,
    signal,
    shouldRetry: ({ error }) => passes(error),
  });
}
