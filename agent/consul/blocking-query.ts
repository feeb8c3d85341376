import { backoff, sleep } from '../util/backoff.ts';
import type { ConsulClient, HealthAnswer, HealthQuery } from './api.ts';
import { asConsulError, type ConsulError } from './error.ts';
import { createPace } from './pace.ts';

export interface WatchOptions {
  client: ConsulClient;
  query: Omit<HealthQuery, 'block'>;
  /** @returns whether the content was another than before */
  answered: (entries: unknown[]) => Promise<boolean> | boolean;
  failed: (error: ConsulError) => void;
  /** How long Consul may hold a query, in ms. */
  wait: number;
  signal: AbortSignal;
}

/**
 * The first after an error, in ms; from answer to answer it doubles up to `wait`.
 * What comes back may be another server or have other data, whose index is lower.
 */
const waitAfterError = 1_000;

/** Failures that are not further apart, in ms, count as one row: one server of several may be broken. */
const calm = 30_000;

/**
 * Watches one service until the signal is aborted, by the rules for blocking
 * queries (developer.hashicorp.com/consul/api-docs/features/blocking).
 *
 * A return proves no change, so `answered` looks at the content. An index that
 * goes back is dropped and the content fetched at once. After an error the next
 * query does not block but is consistent, unless Consul has too much to do: what
 * happened meanwhile is learnt first.
 */
export async function watchService(options: WatchOptions): Promise<void> {
  const { client, query, wait, signal } = options;
  const pace = createPace();
  let index: bigint | undefined;
  let failures = 0;
  let failedAt = Number.NEGATIVE_INFINITY;
  /** What the last answer said may be past. */
  let isUnsure = false;
  let patience = wait;
  while (!signal.aborted) {
    let answer: HealthAnswer;
    try {
      const block = index === undefined ? {} : { block: { index, wait: jitter(patience) } };
      // To other queries, a Consul that reads its log after a restart shows the past.
      const sure = !isUnsure ? {} : { consistency: 'consistent' as const };
      answer = await client.health({ ...query, ...block, ...sure }, signal);
    } catch (error) {
      if (signal.aborted) return;
      index = undefined;
      const known = asConsulError(error, client.name);
      const time = performance.now();
      failures = time - failedAt > calm ? 1 : failures + 1;
      failedAt = time;
      patience = waitAfterError;
      isUnsure = !known.isBusy;
      options.failed(known);
      await sleep(pauseAfter(known, failures), signal);
      continue;
    }
    isUnsure = false;
    if (index !== undefined) patience = Math.min(wait, patience * 2);
    const wentBack = index !== undefined && answer.index !== undefined && answer.index < index;
    index = wentBack ? undefined : answer.index;
    const changed = !wentBack && (await options.answered(answer.entries));
    const pause = pace.after(changed ? 'change' : 'no change');
    if (pause > 0) await sleep(pause, signal);
  }
}

/** @returns how long to wait before the next query, in ms */
function pauseAfter(error: ConsulError, failures: number): number {
  if (error.ourFault) return 30_000 + backoff(1, 30_000, 30_000);
  return error.retryAfter + backoff(failures, 100, 10_000);
}

/** Spreads the renewals of many watches: ± 10 %. */
function jitter(ms: number): number {
  return Math.round(ms * (0.9 + 0.2 * Math.random()));
}
