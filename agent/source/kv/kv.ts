import { isDeepStrictEqual } from 'node:util';
import type { Answer, Question } from '../../consul/blocking-query.ts';
import { ConsulError } from '../../consul/error.ts';
import type { Observation } from '../../state/hold.ts';
import { type Following, follow } from '../follow.ts';
import { health, openHealth } from '../health/health.ts';
import { describePlace } from '../place.ts';
import { proveReadable } from '../readable.ts';
import { createReport } from '../report.ts';
import type { Source, SourceKind, SourceOptions } from '../source.ts';
import { configure, defaults, fault, type KvConfig, keys } from './config.ts';
import { join } from './join.ts';
import { keysOf, type Reading, readPairs } from './reading.ts';

/** What is stored in Consul's KV, in the layout of nginx-upsync-module or as a document. */
export const kv: SourceKind<KvConfig> = {
  keys,
  fault,
  configure,
  defaults,
  open: openKv,
  describe({ key, isPrefix, place, health: of }) {
    const where = [`kv ${isPrefix ? '' : 'key '}${key}`, ...describePlace(place)];
    const stored = where.join(', ');
    return of === undefined ? stored : `${stored}, health of ${health.describe(of)}`;
  },
};

function openKv(options: SourceOptions<KvConfig>): Source {
  const { upstream, client, consistency, wait, log } = options;
  const { key, isPrefix, place, health: of } = options.config;
  const sayMalformed = createReport(upstream, 'left out', log);
  const sayFaults = createReport(upstream, 'not used', log);
  let following: Following<unknown[]> | undefined;
  /** What was there last. */
  let known: string[] = [];
  /** undefined: KV has not answered yet. */
  let reading: Reading | undefined;

  /** Says who of the peers is well, where that is asked for. */
  const whether =
    of &&
    openHealth({ ...options, config: of }, undefined, (found) => {
      return reading === undefined ? { ...found, awaits: true } : join(reading, found, of.service);
    });

  async function ask(question: Question, signal: AbortSignal): Promise<Answer<unknown[]>> {
    const { index, pairs } = await client.kv(
      { key, isPrefix, place, consistency, ...question },
      signal,
    );
    return { index, content: pairs };
  }

  /** @throws ConsulError when there are peers, and none of them can be used */
  function take(pairs: unknown[]): Observation {
    const next = readPairs(pairs, isPrefix);
    const { written, peers, malformed, faults } = next;
    if (pairs.length > 0) known = keysOf(pairs);
    if (written > 0 && Object.keys(peers).length === 0) {
      const why = `none of ${written} peers in KV can be used: ${malformed[0]}`;
      throw new ConsulError('consul/no-instance', why);
    }
    reading = next;
    sayFaults(faults);
    // Else health says it, with its own.
    if (whether === undefined) sayMalformed(malformed);
    return { instances: written, peers };
  }

  return {
    follow(observer) {
      following = follow<unknown[]>({
        upstream,
        ask,
        use(pairs) {
          const before = reading;
          const observation = take(pairs);
          if (whether === undefined) return observer.observed(observation);
          whether.again();
          return !isDeepStrictEqual(before, reading);
        },
        failed: observer.failed,
        wait,
        log,
      });
      whether?.follow(observer);
    },
    async read(signal) {
      const { content } = await ask({}, signal);
      const observation = take(content);
      return whether === undefined ? observation : whether.read(signal);
    },
    async confirm(signal) {
      const before = following?.latest;
      // docs/discoveries/consul-kv-absent.md
      const things = [key, ...known].map((name) => ({ resource: 'key' as const, name }));
      await proveReadable(client, things, place, signal);
      const query = { key, isPrefix, place, consistency: 'consistent', isExtra: true } as const;
      const { pairs } = await client.kv(query, signal);
      // Unless it has been answered meanwhile, which may be newer.
      if (following !== undefined && following.latest === before) following.latest = pairs;
      const observation = take(pairs);
      return whether === undefined ? observation : whether.confirm(signal);
    },
    async summary(signal) {
      const { content } = await ask({}, signal);
      const { written, malformed } = readPairs(content, isPrefix);
      const bad = malformed.length === 0 ? '' : `, ${malformed.length} malformed`;
      const stored = `${written} peer${written === 1 ? '' : 's'} in KV${bad}`;
      return whether === undefined ? stored : `${stored}; ${await whether.summary(signal)}`;
    },
    stop() {
      following?.stop();
      whether?.stop();
    },
  };
}
