import { sleep } from '../../util/backoff.ts';
import { pauseAfter } from '../../util/coded-error.ts';
import { type Question, repeatBlockingQuery } from '../blocking-query.ts';
import { ConsulError } from '../error.ts';
import type { Read, Valid } from '../query.ts';
import { ownConnection } from '../wait.ts';
import { type Check, listedChecks, otherChecks } from './checks.ts';
import { type Listeners, tell } from './listeners.ts';
import { lookInterval } from './rates.ts';

export interface BellsOptions {
  listeners: Listeners;
  /** Asks once. @throws ConsulError for all but a valid answer */
  ask: (read: Read, question: Question, signal: AbortSignal) => Promise<Valid>;
  /** Something is registered otherwise: any service may have changed. */
  registered: () => void;
  heard: (path: string) => void;
  failed: (path: string, error: ConsulError) => void;
  /** How long Consul may hold a query, in ms. */
  wait: number;
  signal: AbortSignal;
}

/** States of checks that have a doorbell each, the more important first. */
export const states = ['critical', 'warning'] as const;

/**
 * No node has it, so that the answer is empty, and costs nothing, whatever there
 * is. Its index is that of all services and nodes (docs/discoveries/consul-cheap-looks.md).
 */
const registrations: Read = {
  path: '/catalog/services',
  parameters: { 'node-meta': 'reloadless:nowhere' },
  isWhole: false,
  expected: 'object',
};

/**
 * Listens to the checks in one state. They name the services of which an instance
 * has come into it, has left it, or is written again in it.
 *
 * @throws a fault of ours
 */
export async function listen(state: (typeof states)[number], options: BellsOptions): Promise<void> {
  const { listeners, ask, heard, failed, wait, signal } = options;
  const path = `/health/state/${state}`;
  const read: Read = { path, isWhole: false, expected: 'list' };
  let last = new Map<string, Check>();

  function answered(list: unknown[]): boolean {
    heard(path);
    const now = listedChecks(list);
    const others = otherChecks(last, now);
    for (const check of others) listeners.ring(check);
    // What was read between two answers may show what neither of them does.
    for (const listener of listeners.all()) {
      const isOver = ([name, shown]: [string, unknown]) => shown === state && !now.has(name);
      if ([...(listener.shown?.unwell ?? [])].some(isOver)) tell(listener, { why: 'bell' });
    }
    last = now;
    return others.length > 0;
  }

  await repeatBlockingQuery<unknown[]>({
    async ask({ isWatch: _, ...question }, signal) {
      const { index, body } = await ask(read, question, signal);
      return { index, content: body as unknown[] };
    },
    answered,
    failed: (error) => failed(path, error),
    wait: ownConnection(wait).now,
    signal,
  });
}

/**
 * Looks again and again whether any service or node is registered otherwise.
 *
 * @throws a fault of ours
 */
export async function watchRegistrations(options: BellsOptions): Promise<void> {
  const { ask, registered, heard, failed, signal } = options;
  const { path } = registrations;
  let last: bigint | undefined;
  let failures = 0;
  while (!signal.aborted) {
    let pause = lookInterval;
    try {
      const { index } = await ask(registrations, {}, signal);
      failures = 0;
      heard(path);
      if (index === undefined || index.value !== last) registered();
      last = index?.value;
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof ConsulError)) throw error;
      failures += 1;
      failed(path, error);
      pause += error.retryAfter + pauseAfter(error, failures);
    }
    await sleep(pause, signal);
  }
}
