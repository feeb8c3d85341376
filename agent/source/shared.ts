import type { ConsulClient, HealthAnswer, HealthQuery, KnownAnswer } from '../consul/api.ts';
import { orAborted } from '../util/abort.ts';

/** Those who watch the same. */
interface Group {
  members: Set<AbortSignal>;
  /** Ends when there is no member left; for Consul's client, it stands for all of them. */
  abort: AbortController;
  /** The queries that go on, by what they ask. */
  queries: Map<string, Flight>;
}

interface Flight {
  answer: Promise<HealthAnswer | KnownAnswer>;
  /** Give the digest that each of those who wait for it knows. */
  known: Set<HealthQuery['known']>;
}

/**
 * A client that sends the same query of several watches once: upstreams that are
 * made of one service, such as a canary and the rest, cost one query. All of them
 * have its answer at the same time, so they go on asking the same.
 */
export function sharingQueries(client: ConsulClient): ConsulClient {
  const groups = new Map<string, Group>();

  function join(what: string, signal: AbortSignal): Group {
    const last = groups.get(what);
    const group = last ?? { members: new Set(), abort: new AbortController(), queries: new Map() };
    groups.set(what, group);
    if (group.members.has(signal)) return group;
    group.members.add(signal);
    const leave = () => {
      group.members.delete(signal);
      if (group.members.size > 0) return;
      if (groups.get(what) === group) groups.delete(what);
      group.abort.abort();
    };
    signal.addEventListener('abort', leave, { once: true });
    return group;
  }

  function ask(query: HealthQuery, group: Group): Flight['answer'] {
    const { consistency, block } = query;
    const key = `${consistency} ${block?.index.value} ${block?.index.address}`;
    const last = group.queries.get(key);
    if (last !== undefined) {
      last.known.add(query.known);
      return last.answer;
    }
    const known = new Set([query.known]);
    const asked = { ...query, known: () => agreed(known) };
    const answer = client.health(asked, group.abort.signal).finally(() => {
      group.queries.delete(key);
    });
    group.queries.set(key, { answer, known });
    return answer;
  }

  return Object.assign(Object.create(client) as ConsulClient, {
    async health(query: HealthQuery, signal: AbortSignal) {
      if (!query.isWatch) return client.health(query, signal);
      signal.throwIfAborted();
      const { service, filter, place } = query;
      const group = join(JSON.stringify([service, filter, place]), signal);
      return orAborted(ask(query, group), signal);
    },
  });
}

/** @returns the digest that all know; undefined: somebody needs to read the answer */
function agreed(known: Flight['known']): string | undefined {
  const [first, ...others] = new Set([...known].map((digest) => digest?.()));
  return others.length === 0 ? first : undefined;
}
