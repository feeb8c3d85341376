import type { ConsulClient, HealthQuery } from '../consul/api.ts';
import { ConsulError } from '../consul/error.ts';

/**
 * Asks whether a service that seems to have no instance really has none: by a
 * consistent read, and only if the token may see nodes. A token without rights
 * gets an empty list too, and before 1.11 Consul does not say that it filtered.
 *
 * @returns the instances, if there are some after all
 * @throws ConsulError while it cannot be told
 */
export async function confirmEmpty(
  client: ConsulClient,
  query: Omit<HealthQuery, 'block' | 'consistency'>,
  signal: AbortSignal,
): Promise<unknown[]> {
  const { entries } = await client.health({ ...query, consistency: 'consistent' }, signal);
  if (entries.length === 0 && !(await client.seesNodes(signal))) {
    throw new ConsulError(
      `${client.name}: the token sees no nodes, so an empty answer says nothing (it needs node:read)`,
    );
  }
  return entries;
}
