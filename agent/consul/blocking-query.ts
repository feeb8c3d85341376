import { setImmediate } from 'node:timers/promises';
import { sleep } from '../util/backoff.ts';
import { pauseAfter } from '../util/coded-error.ts';
import { ConsulError } from './error.ts';
import { createPace } from './pace.ts';
import type { Waits } from './wait.ts';

/** A point in what one server has seen. */
export interface Index {
  /** Opaque but for its order, and at least 1. */
  value: bigint;
  /** Of the server: another one counts otherwise. */
  address: string;
}

/** What one query is to be, beside what it is about. */
export interface Question {
  /** Blocks until the index is higher or `wait` (in ms) has passed; absent: answers at once. */
  block?: { index: Index; wait: number };
  /** Absent: as is usual for the query. */
  consistency?: 'consistent';
  /** One of many, for which the signal stands. */
  isWatch?: true;
}

export interface Answer<Content> {
  /** undefined: the next query cannot build on it. */
  index: Index | undefined;
  content: Content;
}

export interface BlockingQueryOptions<Content> {
  /** Asks once. @throws ConsulError for all but a valid answer */
  ask: (question: Question, signal: AbortSignal) => Promise<Answer<Content>>;
  /** @returns whether the content was another than before */
  answered: (content: Content) => boolean;
  failed: (error: ConsulError) => void;
  /** How long Consul may hold a query now. */
  wait: () => Waits;
  signal: AbortSignal;
}

/** Failures that are not further apart, in ms, count as one row: one server of several may be broken. */
const calm = 30_000;

/**
 * Asks again and again until the signal is aborted, by the rules for blocking
 * queries (developer.hashicorp.com/consul/api-docs/features/blocking).
 *
 * A return proves no change, so `answered` looks at the content. An index that
 * goes back is dropped and the content fetched at once. After an error the next
 * query does not block but is consistent: what happened meanwhile is learnt first.
 * A Consul that has too much to do is spared that. A query that was cut while it was silent is
 * asked again at once; of what was silent for long enough nothing tight can be made.
 *
 * @throws what `ask` and `answered` throw that is no ConsulError: a fault of ours
 */
export async function repeatBlockingQuery<Content>(
  options: BlockingQueryOptions<Content>,
): Promise<void> {
  const { ask, answered, failed, wait, signal } = options;
  const pace = createPace();
  let index: Index | undefined;
  let failures = 0;
  let failedAt = Number.NEGATIVE_INFINITY;
  /** What the last answer said may be past. */
  let isUnsure = false;
  /** How long Consul may hold the next query, in ms. */
  let patience: number | undefined;
  while (!signal.aborted) {
    let answer: Answer<Content>;
    let block: Question['block'];
    if (index !== undefined) {
      const { first, most } = wait();
      patience = Math.min(patience ?? first, most);
      block = { index, wait: jitter(patience) };
    }
    try {
      // To other queries, a Consul that reads its log after a restart shows the past.
      const sure = !isUnsure ? {} : { consistency: 'consistent' as const };
      answer = await ask({ ...(block && { block }), ...sure, isWatch: true }, signal);
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ConsulError)) throw error;
      patience = wait().afterError;
      // The index stays: what comes back may show the past, which this query does not wake for.
      if (error.code === 'consul/silent') continue;
      // One that has too much to do is asked as before; another address is asked at once.
      isUnsure ||= error.code !== 'consul/busy';
      if (isUnsure) index = undefined;
      const time = performance.now();
      failures = time - failedAt > calm ? 1 : failures + 1;
      failedAt = time;
      failed(error);
      await sleep(error.retryAfter + pauseAfter(error, failures), signal);
      continue;
    }
    isUnsure = false;
    if (block !== undefined && patience !== undefined) patience *= 2;
    const wentBack = isBefore(answer.index, index);
    index = wentBack ? undefined : answer.index;
    const changed = !wentBack && answered(answer.content);
    const pause = pace.after(changed ? 'change' : 'no change');
    if (pause > 0) await sleep(pause, signal);
    // What the answer has set off, a push, goes out before the next query.
    else await setImmediate();
  }
}

function isBefore(one: Index | undefined, other: Index | undefined): boolean {
  return one !== undefined && one.address === other?.address && one.value < other.value;
}

/** Spreads the renewals of many queries: ± 10 %. */
function jitter(ms: number): number {
  return Math.round(ms * (0.9 + 0.2 * Math.random()));
}
