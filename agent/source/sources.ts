import type { Config, ConsulConfig } from '../config/config.ts';
import { type ConsulClient, createConsulClient } from '../consul/api.ts';
import type { Observation } from '../state/hold.ts';
import type { State } from '../state/state.ts';
import { boundedLog } from '../telemetry/bounded.ts';
import type { Log } from '../telemetry/log.ts';
import { createOutage } from '../telemetry/outage.ts';
import { createSettler } from './settle.ts';
import { openSource, type Source } from './source.ts';

interface SourcesOptions {
  /** Hears what they say. */
  state: State;
  config: () => Config;
  log: Log;
}

interface Sources {
  /**
   * Makes ready for another configuration of Consul, or reads the token again.
   *
   * @returns a function that makes the change, the upstreams' included, and cannot fail
   * @throws Error when a token or a TLS file cannot be read; then nothing has changed
   */
  prepare(consul: ConsulConfig): () => void;
  stop(): void;
}

/** A source that is followed. */
interface Followed {
  source: Source;
  /** What makes it another one. */
  key: string;
  abort: AbortController;
}

/** Follows the source of each configured upstream. */
export function createSources({ state, config, log }: SourcesOptions): Sources {
  let client: ConsulClient | undefined;
  let clientKey = '';
  const followed = new Map<string, Followed>();
  const faults = boundedLog(log);
  const outage = createOutage(faults);
  const now = () => performance.now();
  const settler = createSettler({ state, confirm, log: faults, now });

  function moved(name: string, why: string | undefined): void {
    if (why === undefined) log.info(`${name} is asked again`);
    else log.warn(`${name} is asked from now on: ${why}`);
  }

  function observed(name: string, observation: Observation): boolean {
    outage.answered(name);
    const changed = state.observe(name, observation, now());
    if (state.get(name)?.held === undefined) settler.forget(name);
    else settler.settle();
    return changed;
  }

  async function confirm(name: string): Promise<Observation | undefined> {
    const one = followed.get(name);
    try {
      const observation = await one?.source.confirm(one.abort.signal);
      return followed.get(name) === one ? observation : undefined;
    } catch (error) {
      if (followed.get(name) === one) throw error;
      return undefined;
    }
  }

  function stop(name: string, { source, abort }: Followed): void {
    abort.abort();
    source.stop();
    followed.delete(name);
    outage.forget(name);
    settler.forget(name);
  }

  function reconcile(): void {
    const { upstreams, consul } = config();
    const keyOf = (source: unknown) => JSON.stringify([source, clientKey]);
    for (const [name, one] of followed) {
      const upstream = upstreams.get(name);
      if (upstream === undefined || keyOf(upstream.source) !== one.key) stop(name, one);
    }
    for (const [name, upstream] of upstreams) {
      if (followed.has(name) || client === undefined) continue;
      const source = openSource({
        upstream: name,
        config: upstream.source,
        client,
        consistency: consul.consistency ?? 'stale',
        wait: consul.wait,
        log: faults,
        remembered: () => state.get(name)?.peers ?? {},
      });
      followed.set(name, { source, key: keyOf(upstream.source), abort: new AbortController() });
      source.follow({
        observed: (observation) => observed(name, observation),
        failed: (error) => outage.failed(name, error),
      });
    }
  }

  return {
    prepare(consul) {
      const key = JSON.stringify(consul);
      if (key === clientKey) {
        client?.readToken();
        return reconcile;
      }
      const next = createConsulClient(consul, moved);
      return () => {
        const last = client;
        client = next;
        clientKey = key;
        reconcile();
        last?.close();
      };
    },
    stop() {
      settler.stop();
      for (const [name, one] of followed) stop(name, one);
      client?.close();
    },
  };
}
