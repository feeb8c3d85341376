import timers from 'node:timers/promises';

/**
 * How long to wait after the nth failure in a row: full jitter, so that many
 * clients do not come back at once
 * (aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter).
 *
 * @param failures from 1
 * @param base the first bound, in ms; it doubles up to `cap`
 * @returns ms
 */
export function backoff(failures: number, base: number, cap: number): number {
  return Math.random() * Math.min(cap, base * 2 ** Math.min(failures - 1, 30));
}

/** Waits; ends early, without an error, when the signal is aborted. */
export async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  await timers.setTimeout(ms, undefined, { signal }).catch(() => {});
}
