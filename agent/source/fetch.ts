import { once } from 'node:events';
import type { Consistency, UpstreamConfig } from '../config/config.ts';
import type { ConsulClient } from '../consul/api.ts';
import { ConsulError } from '../consul/error.ts';
import { confirmEmpty } from './confirm.ts';
import { type Interpretation, interpret } from './interpret.ts';
import { createLookup } from './lookup.ts';
import { createResolver } from './resolver.ts';

/**
 * What may serve of one upstream now. That a service has no instance is
 * confirmed before it is returned.
 *
 * @throws ConsulError when it cannot be told
 */
export async function fetchUpstream(
  client: ConsulClient,
  { service, filter, health, port }: UpstreamConfig,
  consistency: Consistency,
  signal: AbortSignal,
): Promise<Interpretation> {
  const { entries } = await client.health({ service, filter, consistency }, signal);
  const sure =
    entries.length > 0 ? entries : await confirmEmpty(client, { service, filter }, [], signal);
  const unresolved: string[] = [];
  const resolver = createResolver({
    lookup: createLookup(),
    changed: () => {},
    failed: (name, error) => unresolved.push(`${name}: ${error.message}`),
  });
  // Begins the look-ups.
  interpret(sure, health, resolver, {}, port);
  await Promise.race([resolver.settled(), once(signal, 'abort')]);
  signal.throwIfAborted();
  const answer = interpret(sure, health, resolver, {}, port);
  if (answer.doubt !== undefined) throw new ConsulError(answer.doubt);
  return { ...answer, malformed: [...answer.malformed, ...unresolved] };
}
