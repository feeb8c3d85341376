import type { Answer, Question } from '../../consul/blocking-query.ts';
import { ConsulError } from '../../consul/error.ts';
import type { Observation } from '../../state/hold.ts';
import { reason } from '../../telemetry/log.ts';
import { orAborted } from '../../util/abort.ts';
import { type Following, follow } from '../follow.ts';
import { describePlace } from '../place.ts';
import { createReport } from '../report.ts';
import type { Source, SourceKind, SourceOptions } from '../source.ts';
import { type Candidates, candidatesOf } from './candidates.ts';
import { configure, type HealthConfig, keys } from './config.ts';
import { nodesOf, readSurely } from './confirm.ts';
import { createLookup } from './dns.ts';
import { readInstances } from './instance.ts';
import { createResolver } from './resolver.ts';
import { describeSelection, isSelected } from './select.ts';
import { serving } from './serving.ts';
import { balanceOf } from './settings.ts';

/** What an answer shows. */
interface Seen {
  /** undefined: as the last one. */
  entries: unknown[] | undefined;
  digest?: string | undefined;
}

/** The instances of a service that are well. */
export const health: SourceKind<HealthConfig> = {
  keys,
  configure,
  open: (options) => openHealth(options),
  describe({ service, place, filter, selection, port, tagged_address }) {
    const terms = [`service ${service}`, ...describePlace(place)];
    if (port !== undefined) terms.push(`port ${port}`);
    if (tagged_address !== undefined) terms.push(`tagged_address ${tagged_address}`);
    terms.push(...describeSelection(selection));
    if (filter !== undefined) terms.push(`filter ${filter}`);
    return terms.join(', ');
  },
};

/** In which the answers of several look-ups become one change, in ms. */
const gathering = 20;

interface HealthSource extends Source {
  /** Looks once more at the last answer. */
  again(): void;
}

/**
 * As the kind opens it.
 *
 * @param lookup of the names among the addresses
 * @param restrict says who of them is meant, where that is known from elsewhere
 */
export function openHealth(
  options: SourceOptions<HealthConfig>,
  lookup = createLookup(),
  restrict?: (found: Candidates) => Candidates,
): HealthSource {
  const { upstream, config, client, consistency, wait, log } = options;
  const { service, place, filter, selection, policy } = config;
  const report = createReport(upstream, 'left out', log);
  const sayFaults = createReport(upstream, 'not used', log);
  let panicked = false;
  const resolver = createResolver({
    lookup,
    changed: () => following?.again(gathering),
    failed(host, error, addresses) {
      const fate = addresses.length === 0 ? 'left out' : `keeps ${addresses.length} addresses`;
      log.warn({ upstream }, `${upstream}: ${fate}: ${host}: ${reason(error)}`);
    },
  });
  let following: Following<Seen> | undefined;
  /** Of the last answer, if the same one again would say nothing new. */
  let known: string | undefined;
  /** So many there have been. */
  let answers = 0;
  /** The next answer is the first, or the first after one without an instance. */
  let isFirst = true;
  /** Of the last answer with an instance. */
  let nodes: string[] = [];

  async function ask(question: Question, signal: AbortSignal): Promise<Answer<Seen>> {
    const query = { service, place, filter, consistency, known: () => known, ...question };
    const { index, entries, digest } = await client.health(query, signal);
    return { index, content: { entries, digest } };
  }

  async function readOnce(signal: AbortSignal): Promise<unknown[]> {
    const { entries } = await client.health({ service, place, filter, consistency }, signal);
    return entries;
  }

  function find(all: unknown[]): Candidates {
    const entries = all.filter((raw) => isSelected(raw, selection));
    // A host name keeps its addresses over a restart.
    const earlier = isFirst ? options.remembered() : {};
    const found = candidatesOf(entries, resolver, earlier, config);
    isFirst = entries.length === 0;
    if (!isFirst) nodes = nodesOf(entries);
    return restrict?.(found) ?? found;
  }

  /** @throws ConsulError when there are instances, and none of them can be used */
  function observation(found: Candidates): Observation {
    const { doubt, candidates, instances, malformed, faults } = found;
    if (doubt !== undefined) throw new ConsulError('consul/no-instance', doubt);
    const { peers, panic } = serving(candidates, policy);
    report(malformed);
    sayPanic(panic);
    const { balance, why } = balanceOf(found.balances, options.settings());
    sayFaults([...faults, ...why]);
    return { instances, peers, settings: balance === undefined ? {} : { balance } };
  }

  function sayPanic(panic: boolean): void {
    if (panic && !panicked) {
      log.warn({ upstream }, `${upstream}: too few are healthy, so all registered ones serve`);
    }
    if (!panic && panicked) log.info({ upstream }, `${upstream}: enough are healthy again`);
    panicked = panic;
  }

  /** When all names among them have been looked up. */
  async function lookedUp(entries: unknown[], signal: AbortSignal): Promise<Observation> {
    find(entries);
    await orAborted(resolver.settled(), signal);
    return observation(find(entries));
  }

  /** What has been used is of no use any more: there is nothing in it that may be another later. */
  function forget(digest: string | undefined): void {
    known = digest;
    if (following !== undefined) following.latest = undefined;
  }

  return {
    follow(observer) {
      following = follow<Seen>({
        upstream,
        ask,
        use({ entries, digest }) {
          answers += 1;
          if (entries === undefined) {
            observer.unchanged?.();
            return false;
          }
          known = undefined;
          const found = find(entries);
          const changed = !found.awaits && observer.observed(observation(found));
          // Who is meant may be another later, too.
          if (!found.hasNames && restrict === undefined) forget(digest);
          return changed;
        },
        failed: observer.failed,
        wait,
        log,
      });
    },
    async read(signal) {
      return lookedUp(await readOnce(signal), signal);
    },
    async confirm(signal) {
      const before = answers;
      const entries = await readSurely(client, { service, place, filter }, nodes, signal);
      // The next answer may be as the last one was, and this one is not.
      known = undefined;
      // Unless it has been answered meanwhile, which may be newer.
      if (following !== undefined && answers === before) following.latest = { entries };
      return lookedUp(entries, signal);
    },
    async summary(signal) {
      const content = await readOnce(signal);
      const chosen = content.filter((raw) => isSelected(raw, selection));
      if (chosen.length > 0) return summary(chosen, config);
      // A service that is forbidden looks like one that is unknown.
      const query = { service, place, filter: undefined };
      const all = await readSurely(client, query, nodes, signal);
      if (all.length === 0) return 'Consul knows no such service';
      const count = all.filter((raw) => isSelected(raw, selection)).length;
      const what = count > 0 ? 'passes the filter' : 'is selected';
      if (filter === undefined && count > 0) return summary(all, config);
      return `none of ${all.length} instances ${what}`;
    },
    again: () => following?.again(0),
    stop() {
      following?.stop();
      // Forgets the names, so that none is looked up any more.
      resolver.resolve([]);
    },
  };
}

/** @returns such as `3 instances: 2 passing, 1 critical` */
function summary(entries: unknown[], config: HealthConfig): string {
  const { instances, malformed } = readInstances(entries, config);
  const counts = new Map<string, number>();
  for (const { health } of instances) counts.set(health, (counts.get(health) ?? 0) + 1);
  if (malformed.length > 0) counts.set('malformed', malformed.length);
  if (counts.size === 0) return 'no instances';
  const parts = [...counts].map(([state, count]) => `${count} ${state}`);
  return `${entries.length} instance${entries.length === 1 ? '' : 's'}: ${parts.join(', ')}`;
}
