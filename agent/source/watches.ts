import type { Config, ConsulConfig, UpstreamConfig } from '../config/config.ts';
import { type ConsulClient, createConsulClient } from '../consul/api.ts';
import type { State } from '../state/state.ts';
import { boundedLog } from '../telemetry/bounded.ts';
import type { Log } from '../telemetry/log.ts';
import { createOutage } from '../telemetry/outage.ts';
import { confirmEmpty } from './confirm.ts';
import { type Follower, follow } from './follow.ts';
import type { Interpretation } from './interpret.ts';
import { createSettler } from './settle.ts';

export interface WatchesOptions {
  /** Hears what Consul says. */
  state: State;
  config: () => Config;
  log: Log;
}

export interface Watches {
  /**
   * Makes ready for another configuration of Consul, or reads the token again.
   *
   * @returns a function that makes the change, the upstreams' included, and cannot fail
   * @throws Error when a token or a TLS file cannot be read; then nothing has changed
   */
  prepare(consul: ConsulConfig): () => void;
  stop(): void;
}

/** How often it is looked whether held peers are due, in ms. */
const settleInterval = 1000;

/** One watch for each configured upstream. */
export function createWatches({ state, config, log }: WatchesOptions): Watches {
  let client: ConsulClient | undefined;
  let clientKey = '';
  let abort = new AbortController();
  const followers = new Map<string, { key: string; follower: Follower }>();
  const faults = boundedLog(log);
  const outage = createOutage(faults);
  const now = () => performance.now();
  const settler = createSettler({ state, confirm, log: faults, now });

  /** @returns whether the answer changed anything */
  function take(name: string, answer: Interpretation): boolean {
    outage.answered(name);
    const changed = state.observe(name, answer, now());
    if (state.get(name)?.held === undefined) settler.forget(name);
    else settler.settle();
    return changed;
  }

  async function confirm(name: string): Promise<boolean> {
    const upstream = config().upstreams.get(name);
    const nodes = state.get(name)?.nodes;
    if (upstream === undefined || nodes === undefined || client === undefined) return false;
    const { service, filter } = upstream;
    const entries = await confirmEmpty(client, { service, filter }, nodes, abort.signal);
    if (entries.length === 0) return true;
    followers.get(name)?.follower.take(entries);
    return false;
  }

  function reconcile(): void {
    const { upstreams, consul } = config();
    for (const [name, { key, follower }] of followers) {
      const upstream = upstreams.get(name);
      if (upstream !== undefined && watchKey(upstream, clientKey) === key) continue;
      follower.stop();
      followers.delete(name);
      outage.forget(name);
      settler.forget(name);
    }
    for (const [name, upstream] of upstreams) {
      if (followers.has(name) || client === undefined) continue;
      const follower = follow({
        client,
        name,
        upstream,
        consistency: consul.consistency ?? 'stale',
        wait: consul.wait,
        log: faults,
        remembered: () => state.get(name)?.peers ?? {},
        answered: (answer) => take(name, answer),
        failed: (error) => outage.failed(name, error),
      });
      followers.set(name, { key: watchKey(upstream, clientKey), follower });
    }
  }

  const timer = setInterval(settler.settle, settleInterval);
  return {
    prepare(consul) {
      const key = JSON.stringify(consul);
      if (key === clientKey) {
        client?.readToken();
        return reconcile;
      }
      const next = createConsulClient(consul);
      return () => {
        const last = client;
        client = next;
        clientKey = key;
        abort.abort();
        abort = new AbortController();
        reconcile();
        last?.close();
      };
    },
    stop() {
      clearInterval(timer);
      abort.abort();
      for (const { follower } of followers.values()) follower.stop();
      client?.close();
    },
  };
}

/** Of what makes a watch another one. */
function watchKey({ service, filter, health, port }: UpstreamConfig, clientKey: string): string {
  return JSON.stringify([service, filter, health, port, clientKey]);
}
