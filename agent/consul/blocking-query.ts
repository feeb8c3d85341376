import { backoff, sleep } from '../util/backoff.ts';
import { ConsulError } from './error.ts';
import { createPace } from './pace.ts';

/** What one query is to be, beside what it is about. */
export interface Question {
  /** Blocks until the index is higher or `wait` (in ms) has passed; absent: answers at once. */
  block?: { index: bigint; wait: number };
  /** Absent: as is usual for the query. */
  consistency?: 'consistent';
}

export interface Answer<Content> {
  /** undefined: the next query cannot build on it. */
  index: bigint | undefined;
  content: Content;
}

export interface BlockingQueryOptions<Content> {
  /** Asks once. @throws ConsulError for all but a valid answer */
  ask: (question: Question, signal: AbortSignal) => Promise<Answer<Content>>;
  /** @returns whether the content was another than before */
  answered: (content: Content) => boolean;
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
 * Asks again and again until the signal is aborted, by the rules for blocking
 * queries (developer.hashicorp.com/consul/api-docs/features/blocking).
 *
 * A return proves no change, so `answered` looks at the content. An index that
 * goes back is dropped and the content fetched at once. After an error the next
 * query does not block but is consistent, unless Consul has too much to do: what
 * happened meanwhile is learnt first.
 *
 * @throws what `ask` and `answered` throw that is no ConsulError: a fault of ours
 */
export async function repeatBlockingQuery<Content>(
  options: BlockingQueryOptions<Content>,
): Promise<void> {
  const { ask, answered, failed, wait, signal } = options;
  const pace = createPace();
  let index: bigint | undefined;
  let failures = 0;
  let failedAt = Number.NEGATIVE_INFINITY;
  /** What the last answer said may be past. */
  let isUnsure = false;
  let patience = wait;
  while (!signal.aborted) {
    let answer: Answer<Content>;
    try {
      const block = index === undefined ? {} : { block: { index, wait: jitter(patience) } };
      // To other queries, a Consul that reads its log after a restart shows the past.
      const sure = !isUnsure ? {} : { consistency: 'consistent' as const };
      answer = await ask({ ...block, ...sure }, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ConsulError)) throw error;
      index = undefined;
      const time = performance.now();
      failures = time - failedAt > calm ? 1 : failures + 1;
      failedAt = time;
      patience = waitAfterError;
      isUnsure = !error.isBusy;
      failed(error);
      await sleep(pauseAfter(error, failures), signal);
      continue;
    }
    isUnsure = false;
    if (index !== undefined) patience = Math.min(wait, patience * 2);
    const wentBack = index !== undefined && answer.index !== undefined && answer.index < index;
    index = wentBack ? undefined : answer.index;
    const changed = !wentBack && answered(answer.content);
    const pause = pace.after(changed ? 'change' : 'no change');
    if (pause > 0) await sleep(pause, signal);
  }
}

/** @returns how long to wait before the next query, in ms */
function pauseAfter(error: ConsulError, failures: number): number {
  if (error.ourFault) return 30_000 + backoff(1, 30_000, 30_000);
  return error.retryAfter + backoff(failures, 100, 10_000);
}

/** Spreads the renewals of many queries: ± 10 %. */
function jitter(ms: number): number {
  return Math.round(ms * (0.9 + 0.2 * Math.random()));
}
