import type { ConsulClient, HealthQuery } from '../../consul/api.ts';
import { anyNode, proveReadable } from '../readable.ts';

/**
 * The instances of a service for sure: by a consistent read, and only if the
 * token may read the service and its nodes.
 *
 * @param nodes where its last known instances were; none: that is not known
 * @throws ConsulError while it cannot be told
 */
export async function readSurely(
  client: ConsulClient,
  query: Pick<HealthQuery, 'service' | 'filter' | 'place'>,
  nodes: readonly string[],
  signal: AbortSignal,
): Promise<unknown[]> {
  const named = nodes.length > 0 ? nodes : [anyNode];
  const things = [
    { resource: 'service' as const, name: query.service },
    ...named.map((name) => ({ resource: 'node' as const, name })),
  ];
  await proveReadable(client, things, query.place ?? {}, signal);
  const { entries } = await client.health(
    { ...query, consistency: 'consistent', isExtra: true },
    signal,
  );
  return entries;
}

/** The nodes of all entries, malformed ones too. */
export function nodesOf(entries: unknown[]): string[] {
  const names = entries.map((raw) => (raw as { Node?: { Node?: unknown } } | null)?.Node?.Node);
  return [...new Set(names.filter((name) => typeof name === 'string' && name !== ''))] as string[];
}
