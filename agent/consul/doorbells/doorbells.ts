import { setMaxListeners } from 'node:events';
import { sleep } from '../../util/backoff.ts';
import { createTurns } from '../../util/turns.ts';
import { Crowded } from '../crowd.ts';
import { ConsulError } from '../error.ts';
import type { Query, Read, Valid } from '../query.ts';
import type { Transport } from '../transport.ts';
import { type BellsOptions, listen, states, watchRegistrations } from './bells.ts';
import { shownBy } from './checks.ts';
import { createListeners, type Listener, type Ring } from './listeners.ts';
import { renewalOf } from './rates.ts';
import { createSweep } from './sweep.ts';

interface DoorbellsOptions {
  transport: Transport;
  /** So many connections there are for it all. */
  connections: number;
  /** How long Consul may hold a query, in ms. */
  wait: number;
  /** Asks once, in the usual consistency where none is named. @throws ConsulError for all but a valid answer */
  ask: (read: Read, query: Partial<Query>, signal: AbortSignal) => Promise<Valid>;
  /** What is deaf is another. */
  changed: () => void;
}

/** Carries the watches of one address where they are too many for a connection each. */
export interface Doorbells {
  /**
   * One query of a watch, for which the signal stands: on a connection of its own
   * or, in a crowd, as soon as its service may have changed.
   *
   * @throws ConsulError for all but a valid answer; Consul itself may not have been asked
   */
  ask(service: string, read: Read, query: Partial<Query>, signal: AbortSignal): Promise<Valid>;
  /** There may be a crowd no more. */
  replanned(): void;
  /** Why a doorbell is not heard, though Consul answers; undefined: all are. */
  readonly deaf: string | undefined;
  stop(): void;
}

/** Reads of services at once, at most. */
const mostReads = 16;
/** Looks at services at once, at most. */
const mostLooks = 8;

/** After which a read that showed nothing new is made again, in ms: who rang may be ahead of who answers. */
const lag = 1_000;

/** When nobody has waited for that long, in ms, the doorbells are left. */
const idle = 5_000;

/** No instance has it, so that the answer is empty: docs/discoveries/consul-cheap-looks.md */
const noTag = 'reloadless:nothing';

/** Of the errors, those by which Consul, and not one of its answers, is away. */
const gone: ConsulError['code'][] = ['consul/unreachable', 'consul/timeout'];
/** And those with which the same may begin. */
const outage: ConsulError['code'][] = [...gone, 'consul/closed', 'consul/cut-off', 'consul/failed'];

export function createDoorbells(options: DoorbellsOptions): Doorbells {
  const { transport, connections, wait, changed } = options;
  const listeners = createListeners();
  const reads = createTurns(Math.min(mostReads, Math.max(1, connections - mostLooks)));
  /** By the path, why a doorbell does not ring. */
  const failing = new Map<string, ConsulError>();
  let running: AbortController | undefined;
  let deaf: string | undefined;

  /** Of a few connections some must be left for what is asked at once. */
  const heardStates = states.slice(0, Math.max(0, Math.min(states.length, connections - 2)));

  function say(): void {
    const [first] = [...failing].filter(
      ([, { code }]) => code !== 'consul/busy' && !outage.includes(code),
    );
    const why = first === undefined ? undefined : `${first[0]}: ${first[1].message}`;
    if (why === deaf) return;
    deaf = why;
    changed();
  }

  /** @param service of which nothing is known now; undefined: of any of them */
  function fail(error: unknown, service?: string): void {
    const isGone = error instanceof ConsulError && gone.includes(error.code);
    const all = isGone || service === undefined ? listeners.all() : listeners.at(service);
    for (const { waiting } of [...all]) waiting?.fail(error);
  }

  function start(): void {
    const abort = new AbortController();
    const { signal } = abort;
    setMaxListeners(0, signal);
    running = abort;
    const sweep = createSweep({
      listeners,
      look: (service, isUnsure) => {
        const path = `/health/service/${encodeURIComponent(service)}`;
        const read = { path, parameters: { tag: noTag }, isWhole: true, expected: 'list' } as const;
        return options.ask(read, isUnsure ? { consistency: 'consistent' } : {}, signal);
      },
      failed: fail,
      isEndless: () => failing.size > 0 || heardStates.length < states.length,
      most: Math.min(mostLooks, Math.max(1, Math.floor(connections / 4))),
      signal,
    });
    const bells: BellsOptions = {
      listeners,
      ask: options.ask,
      registered: () => sweep.urge(),
      heard(path) {
        if (!failing.delete(path)) return;
        sweep.urge();
        say();
      },
      failed(path, error) {
        failing.set(path, error);
        // What comes back may read its log, and show the past meanwhile.
        sweep.urge(outage.includes(error.code));
        if (gone.includes(error.code)) fail(error);
        say();
      },
      wait,
      signal,
    };
    const work = [...heardStates.map((state) => listen(state, bells)), watchRegistrations(bells)];
    Promise.all(work).catch((error) => {
      // A fault of ours: the watches say it, and begin again.
      abort.abort();
      fail(error);
    });
    leaveWhenIdle(abort);
  }

  async function leaveWhenIdle({ signal }: AbortController): Promise<void> {
    while (!signal.aborted) {
      await sleep(idle, signal);
      if (!signal.aborted && !listeners.isWaiting) stop();
    }
  }

  function stop(): void {
    running?.abort();
    running = undefined;
    failing.clear();
    say();
  }

  /** Waits until the service may have changed. @returns undefined: it is to be carried otherwise */
  function hold(
    listener: Listener,
    index: bigint,
    patience: number,
    signal: AbortSignal,
  ): Promise<Ring | undefined> {
    if (running === undefined || running.signal.aborted) start();
    const { missed, shown } = listener;
    listener.missed = undefined;
    if (missed !== undefined) return Promise.resolve(missed);
    // No bell can name it as yet.
    if (shown === undefined) return Promise.resolve({ why: 'time' });
    // Of those who share a query, one may ask from an older index than another.
    listener.waiting?.end({ why: 'time' });
    return new Promise((resolve, reject) => {
      const over = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', aborted);
        listener.waiting = undefined;
      };
      const end = (ring: Ring | undefined) => {
        over();
        resolve(ring);
      };
      const fail = (error: unknown) => {
        over();
        reject(error);
      };
      const aborted = () => fail(signal.reason);
      const timer = setTimeout(() => end({ why: 'time' }), patience);
      signal.addEventListener('abort', aborted, { once: true });
      listener.waiting = { index, end, fail };
    });
  }

  /** Takes what an answer shows. */
  function noted(listener: Listener, answer: Valid, index: bigint | undefined): Valid {
    if (answer.body !== undefined) listener.shown = shownBy(answer.body as unknown[]);
    if (answer.index?.value !== index) listeners.changed(listener.service);
    return answer;
  }

  async function readAfter(
    { isUnsure }: Ring,
    index: bigint,
    read: Read,
    query: Partial<Query>,
    signal: AbortSignal,
  ): Promise<Valid> {
    const consistent = () => options.ask(read, { ...query, consistency: 'consistent' }, signal);
    if (isUnsure) return consistent();
    const answer = await options.ask(read, query, signal);
    // It went back: who answers may be reading its log.
    return answer.index !== undefined && answer.index.value < index ? consistent() : answer;
  }

  return {
    async ask(service, read, query, signal) {
      // Over HTTP/2 nothing need be known of them.
      if (transport.plan.connections !== undefined) return options.ask(read, query, signal);
      const listener = listeners.of(service, signal);
      const { block, ...atOnce } = query;
      if (block === undefined || block.index.address !== transport.name) {
        const ask = () => options.ask(read, query, signal);
        const answer = await (transport.plan.isCrowded ? reads(ask) : ask());
        return noted(listener, answer, undefined);
      }
      const { value: index } = block.index;
      let patience = renewalOf(listeners.size, wait) * (0.9 + 0.2 * Math.random());
      for (;;) {
        if (!transport.plan.isCrowded) {
          try {
            const answer = await options.ask(read, { ...query, yields: true }, signal);
            return noted(listener, answer, index);
          } catch (error) {
            if (!(error instanceof Crowded)) throw error;
          }
        }
        const ring = await hold(listener, index, patience, signal);
        if (ring === undefined) continue;
        const answer = await reads(() => readAfter(ring, index, read, atOnce, signal));
        if (ring.why !== 'bell' || answer.index?.value !== index) {
          return noted(listener, answer, index);
        }
        noted(listener, answer, index);
        patience = lag;
      }
    },
    replanned() {
      if (transport.plan.isCrowded) return;
      for (const { waiting } of listeners.all()) waiting?.end(undefined);
    },
    get deaf() {
      return deaf;
    },
    stop,
  };
}
