import type { ConsulClient } from '../consul/api.ts';
import { ConsulError } from '../consul/error.ts';
import type { Readable } from '../consul/rights.ts';
import type { Place } from '../consul/transport.ts';

/**
 * The name that no node has: who may read it may read every node that no rule
 * of its own forbids.
 */
export const anyNode = '';

/**
 * Asks whether the token may read all of these. Without a right it gets an empty
 * list, or a shorter one. What is asked afterwards then shows all that there is.
 *
 * @throws ConsulError when it may not, and while it cannot be told
 */
export async function proveReadable(
  client: ConsulClient,
  things: Readable[],
  place: Place,
  signal: AbortSignal,
): Promise<void> {
  const denied = await client.denied(things, signal, place);
  if (denied.length === 0) return;
  throw new ConsulError(
    'consul/blind',
    `${client.name}: the token may not read ${describe(denied)}, so its answer says nothing`,
  );
}

function describe(denied: Readable[]): string {
  const [first, ...rest] = denied.map(({ resource, name }) => {
    return name === anyNode ? 'every node' : `${resource} "${name}"`;
  });
  return rest.length === 0 ? `${first}` : `${first} and ${rest.length} more`;
}
