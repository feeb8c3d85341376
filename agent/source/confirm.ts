import type { ConsulClient, HealthQuery, Readable } from '../consul/api.ts';
import { ConsulError } from '../consul/error.ts';

/**
 * The name that no node has: who may read it may read every node that no rule
 * of its own forbids.
 */
const anyNode = '';

/**
 * Asks whether a service that seems to have no instance really has none: by a
 * consistent read, and only if the token may read the service and its nodes. A
 * token without these rights gets an empty list too. The rights are asked for
 * first: a token that gets them back in between then shows the instances.
 *
 * @param nodes where its last known instances were; none: that is not known
 * @returns the instances, if there are some after all
 * @throws ConsulError while it cannot be told
 */
export async function confirmEmpty(
  client: ConsulClient,
  query: Omit<HealthQuery, 'block' | 'consistency'>,
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
      `${client.name}: the token may not read ${describe(denied)}, so an empty answer says nothing`,
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
