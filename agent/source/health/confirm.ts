import type { ConsulClient, HealthQuery } from '../../consul/api.ts';
import { ConsulError } from '../../consul/error.ts';
import type { Readable } from '../../consul/rights.ts';

/**
 * The name that no node has: who may read it may read every node that no rule
 * of its own forbids.
 */
const anyNode = '';

/**
 * The instances of a service for sure: by a consistent read, and only if the
 * token may read the service and its nodes. A token without these rights gets an
 * empty list, or a shorter one. The rights are asked for first: a token that gets
 * them back in between then shows the instances.
 *
 * @param nodes where its last known instances were; none: that is not known
 * @throws ConsulError while it cannot be told
 */
export async function readSurely(
  client: ConsulClient,
  query: Pick<HealthQuery, 'service' | 'filter'>,
  nodes: readonly string[],
  signal: AbortSignal,
): Promise<unknown[]> {
  const things: Readable[] = [
    { resource: 'service', name: query.service },
    ...(nodes.length > 0 ? nodes : [anyNode]).map((name) => ({ resource: 'node' as const, name })),
  ];
  const denied = await client.denied(things, signal);
  if (denied.length > 0) {
    throw new ConsulError(
      'consul/blind',
      `${client.name}: the token may not read ${describe(denied)}, so its answer says nothing`,
    );
  }
  const { entries } = await client.health(
    { ...query, consistency: 'consistent', isExtra: true },
    signal,
  );
  return entries;
}

function describe(denied: Readable[]): string {
  const [first, ...rest] = denied.map(({ resource, name }) => {
    return name === anyNode ? 'every node' : `${resource} "${name}"`;
  });
  return rest.length === 0 ? `${first}` : `${first} and ${rest.length} more`;
}

/** The nodes of all entries, malformed ones too. */
export function nodesOf(entries: unknown[]): string[] {
  const names = entries.map((raw) => (raw as { Node?: { Node?: unknown } } | null)?.Node?.Node);
  return [...new Set(names.filter((name) => typeof name === 'string' && name !== ''))] as string[];
}
