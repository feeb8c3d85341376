import type { Consistency, UpstreamConfig } from '../config/config.ts';
import { type Log, reason } from '../telemetry/log.ts';
import type { ConsulClient } from './client.ts';
import { ConsulError } from './error.ts';
import { type Interpretation, interpret } from './interpret.ts';
import { createResolver } from './resolver.ts';
import { watchService } from './watch.ts';

export interface FollowOptions {
  client: ConsulClient;
  name: string;
  upstream: UpstreamConfig;
  consistency: Consistency;
  log: Log;
  /** Hears of every valid answer. @returns whether it changed anything */
  answered: (answer: Interpretation) => boolean;
  failed: (error: ConsulError) => void;
}

export interface Follower {
  /** Takes an answer that came another way, as if the watch had got it. */
  take(entries: unknown[]): Promise<boolean>;
  stop(): void;
}

/** Between two look-ups of the same host names, in ms. */
const refreshInterval = 30_000;

/** Follows what may serve of one upstream: its watch, and the names among its addresses. */
export function follow(options: FollowOptions): Follower {
  const { client, name, upstream, consistency, log } = options;
  const { service, filter, health } = upstream;
  const abort = new AbortController();
  const resolver = createResolver((host, error) => {
    log.warn({ upstream: name }, `${name}: left out: ${host}: ${reason(error)}`);
  });
  let latest: unknown[] | undefined;
  let names: string[] = [];
  let warned = '';
  let panicked = false;

  async function take(entries: unknown[]): Promise<boolean> {
    latest = entries;
    const answer = await interpret(entries, health, resolver);
    if (latest !== entries || abort.signal.aborted) return false;
    names = answer.names;
    if (answer.doubt !== undefined) {
      options.failed(new ConsulError(answer.doubt));
      return false;
    }
    report(answer);
    return options.answered(answer);
  }

  function report({ malformed, panic }: Interpretation): void {
    const warning = malformed.join('; ');
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

  async function refreshNames(): Promise<void> {
    if (names.length === 0 || latest === undefined) return;
    if (await resolver.refresh(names)) await take(latest);
  }

  const timer = setInterval(refreshNames, refreshInterval);
  watchService({
    client,
    query: { service, filter, consistency },
    answered: take,
    failed: options.failed,
    signal: abort.signal,
  });
  return {
    take,
    stop() {
      clearInterval(timer);
      abort.abort();
    },
  };
}
