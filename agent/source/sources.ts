import {
  type Config,
  type ConsulConfig,
  mostFollowed,
  type UpstreamConfig,
} from '../config/config.ts';
import { type Catalogue, type ConsulClient, createConsulClient } from '../consul/api.ts';
import type { Observation } from '../state/hold.ts';
import type { State } from '../state/state.ts';
import { boundedLog } from '../telemetry/bounded.ts';
import type { Log } from '../telemetry/log.ts';
import { createOutage } from '../telemetry/outage.ts';
import { listed } from './discover/rules.ts';
import { subject } from './discover/set.ts';
import { type Following, follow } from './follow.ts';
import { createSettler } from './settle.ts';
import { sharingQueries } from './shared.ts';
import { openSource, type Source } from './source.ts';

interface SourcesOptions {
  /** Hears what they say. */
  state: State;
  config: () => Config;
  /** Whose sources are followed, the most important first. */
  upstreams: () => ReadonlyMap<string, UpstreamConfig>;
  /** Hears what the catalogue shows. @returns whether that was anything other than before */
  catalogue: (catalogue: Catalogue) => boolean;
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
  /** Follows the upstreams that there are now, and no other; those that stay go on. */
  reconcile(): void;
  stop(): void;
}

/** A source that is followed. */
interface Followed {
  source: Source;
  /** What makes it another one. */
  key: string;
  abort: AbortController;
}

/** Follows the source of each upstream, and the catalogue where there are rules of discovery. */
export function createSources(options: SourcesOptions): Sources {
  const { state, config, log } = options;
  let client: ConsulClient | undefined;
  let clientKey = '';
  const followed = new Map<string, Followed>();
  const beyond = createBeyond(log);
  let catalogue: { key: string; following: Following<Catalogue> } | undefined;
  const faults = boundedLog(log);
  const outage = createOutage(faults);
  const now = () => performance.now();
  const settler = createSettler({ state, confirm, log: faults, now });

  function moved(name: string, why: string | undefined): void {
    if (why === undefined) log.info(`${name} is asked again`);
    else log.warn(`${name} is asked from now on: ${why}`);
  }

  function planned(line: string, isWhole: boolean): void {
    log[isWhole ? 'info' : 'error'](line);
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

  function reconcileCatalogue(): void {
    const { discover, consul } = config();
    const key = discover.length > 0 ? clientKey : undefined;
    if (catalogue?.key === key || client === undefined) return;
    catalogue?.following.stop();
    catalogue = undefined;
    outage.forget(subject);
    if (key === undefined) return;
    const { catalogue: ask, waits } = client;
    const following = follow<Catalogue>({
      upstream: subject,
      async ask(question, signal) {
        const consistency = consul.consistency ?? 'stale';
        const answer = await ask({ consistency, ...question }, signal);
        return { index: answer.index, content: answer.catalogue };
      },
      use(content) {
        if (catalogue?.following !== following) return false;
        outage.answered(subject);
        return options.catalogue(content);
      },
      failed: (error) => outage.failed(subject, error),
      wait: waits,
      log: faults,
    });
    catalogue = { key, following };
  }

  function reconcile(): void {
    reconcileCatalogue();
    const { consul } = config();
    const upstreams = options.upstreams();
    const most = mostFollowed(config());
    const left: string[] = [];
    const keyOf = (source: unknown) => JSON.stringify([source, clientKey]);
    for (const [name, one] of followed) {
      const upstream = upstreams.get(name);
      if (upstream === undefined || keyOf(upstream.source) !== one.key) stop(name, one);
    }
    for (const [name, upstream] of upstreams) {
      if (followed.has(name) || client === undefined) continue;
      if (followed.size >= most) {
        left.push(name);
        continue;
      }
      const source = openSource({
        upstream: name,
        config: upstream.source,
        client,
        consistency: consul.consistency ?? 'stale',
        wait: client.waits,
        log: faults,
        settings: () => state.get(name)?.declared.settings ?? {},
        remembered: () => state.get(name)?.peers ?? {},
      });
      followed.set(name, { source, key: keyOf(upstream.source), abort: new AbortController() });
      source.follow({
        observed: (observation) => observed(name, observation),
        unchanged: () => outage.answered(name),
        failed: (error) => outage.failed(name, error),
      });
    }
    beyond(left, consul.max_connections);
  }

  return {
    prepare(consul) {
      const key = JSON.stringify(consul);
      if (key === clientKey) {
        client?.readToken();
        return reconcile;
      }
      const next = sharingQueries(createConsulClient(consul, moved, planned));
      return () => {
        const last = client;
        client = next;
        clientKey = key;
        reconcile();
        last?.close();
      };
    },
    reconcile,
    stop() {
      settler.stop();
      catalogue?.following.stop();
      for (const [name, one] of followed) stop(name, one);
      client?.close();
    },
  };
}

/** @returns a function that says which upstreams there are no connections for, once */
function createBeyond(log: Log): (names: string[], connections: number) => void {
  let said = new Set<string>();
  return (names, connections) => {
    if (names.some((name) => !said.has(name))) {
      const which = `${names.length} services are not followed, and keep their last peers`;
      const why = `consul.max_connections (${connections}) leaves no more queries`;
      log.error({ upstreams: names }, `${which}: ${listed(names)}: ${why}`);
    }
    if (names.length === 0 && said.size > 0) log.info('all services are followed again');
    said = new Set(names);
  };
}
