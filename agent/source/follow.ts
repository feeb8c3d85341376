import type { Consistency, UpstreamConfig } from '../config/config.ts';
import type { ConsulClient } from '../consul/api.ts';
import { type Answer, type Question, repeatBlockingQuery } from '../consul/blocking-query.ts';
import { ConsulError } from '../consul/error.ts';
import type { Peers } from '../state/document.ts';
import type { FaultLog } from '../telemetry/bounded.ts';
import { reason } from '../telemetry/log.ts';
import { backoff, sleep } from '../util/backoff.ts';
import { brief } from '../util/text.ts';
import { type Interpretation, interpret } from './interpret.ts';
import { createLookup, type Lookup } from './lookup.ts';
import { createResolver } from './resolver.ts';

export interface FollowOptions {
  client: ConsulClient;
  name: string;
  upstream: UpstreamConfig;
  consistency: Consistency;
  /** How long Consul may hold a query, in ms. */
  wait: number;
  log: FaultLog;
  /** The last peers that are known, whoever said so: a host name keeps its addresses over a restart. */
  remembered: () => Peers;
  lookup?: Lookup;
  /** Hears of every valid answer. @returns whether it changed anything */
  answered: (answer: Interpretation) => boolean;
  failed: (error: ConsulError) => void;
}

export interface Follower {
  /** Takes an answer that came another way, as if the watch had got it. */
  take(entries: unknown[]): boolean;
  stop(): void;
}

/** Between two look-ups of the same host names, in ms. */
const refreshInterval = 30_000;

/** In which the answers of several look-ups become one change, in ms. */
const gathering = 20;

/** As many malformed instances as a line of the log can bear. */
const mostNamed = 5;

/**
 * Follows what may serve of one upstream: its watch, and the names among its
 * addresses. Nothing that it throws goes further: a fault of ours in one
 * service is that one's alone.
 */
export function follow(options: FollowOptions): Follower {
  const { client, name, upstream, consistency, wait, log } = options;
  const { service, filter, health, port } = upstream;
  const abort = new AbortController();
  const resolver = createResolver({
    lookup: options.lookup ?? createLookup(),
    changed: () => takeAgain(gathering),
    failed(host, error, addresses) {
      const fate = addresses.length === 0 ? 'left out' : `keeps ${addresses.length} addresses`;
      log.warn({ upstream: name }, `${name}: ${fate}: ${host}: ${reason(error)}`);
    },
  });
  let latest: unknown[] | undefined;
  let again: NodeJS.Timeout | undefined;
  /** The next answer is the first, or the first after one without an instance. */
  let isFirst = true;
  let faults = 0;
  let warned = '';
  let panicked = false;

  function take(entries: unknown[]): boolean {
    latest = entries;
    if (abort.signal.aborted) return false;
    try {
      const changed = use(entries);
      if (faults > 0) log.info({ upstream: name }, `${name}: handled again`);
      faults = 0;
      return changed;
    } catch (error) {
      takeAgain(fault(error));
      return false;
    }
  }

  function use(entries: unknown[]): boolean {
    const earlier = isFirst ? options.remembered() : {};
    const answer = interpret(entries, health, resolver, earlier, port);
    isFirst = entries.length === 0;
    if (answer.awaits) return false;
    if (answer.doubt !== undefined) {
      options.failed(new ConsulError(answer.doubt));
      return false;
    }
    report(answer);
    return options.answered(answer);
  }

  function takeAgain(delay: number): void {
    again ??= setTimeout(() => {
      again = undefined;
      if (latest !== undefined) take(latest);
    }, delay);
  }

  /** Says it once, until the service is handled again. @returns when to try again, in ms */
  function fault(error: unknown): number {
    faults += 1;
    const stack = error instanceof Error ? error.stack?.slice(0, 4096) : undefined;
    const fields = { upstream: name, err: error, stack };
    const line = `${name}: a fault of the agent: ${brief(reason(error), 300)}: its peers stay`;
    if (faults === 1) log.error(fields, line);
    else log.debug(fields, line);
    return backoff(faults, 1000, 30_000);
  }

  function report({ malformed, panic }: Interpretation): void {
    const more = malformed.length - mostNamed;
    const warning = malformed.slice(0, mostNamed).join('; ') + (more > 0 ? `; ${more} more` : '');
    if (warning !== '' && warning !== warned) {
      log.warn({ upstream: name }, `${name}: left out: ${warning}`);
    }
    warned = warning;
    if (panic && !panicked) {
      log.warn({ upstream: name }, `${name}: too few are healthy, so all registered ones serve`);
    }
    if (!panic && panicked) log.info({ upstream: name }, `${name}: enough are healthy again`);
    panicked = panic;
  }

  async function ask(question: Question, signal: AbortSignal): Promise<Answer<unknown[]>> {
    const query = { service, filter, consistency, ...question };
    const { index, entries } = await client.health(query, signal);
    return { index, content: entries };
  }

  async function watch(): Promise<void> {
    const { signal } = abort;
    while (!signal.aborted) {
      try {
        await repeatBlockingQuery({ ask, answered: take, failed: options.failed, wait, signal });
      } catch (error) {
        await sleep(fault(error), signal);
      }
    }
  }

  const timer = setInterval(resolver.refresh, refreshInterval);
  watch();
  return {
    take,
    stop() {
      clearInterval(timer);
      clearTimeout(again);
      abort.abort();
      // Forgets the names, so that none is looked up any more.
      resolver.resolve([]);
    },
  };
}
