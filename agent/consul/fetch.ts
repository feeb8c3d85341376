import type { Consistency, UpstreamConfig } from '../config/config.ts';
import type { ConsulClient } from './client.ts';
import { confirmEmpty } from './confirm.ts';
import { ConsulError } from './error.ts';
import { type Interpretation, interpret } from './interpret.ts';
import { createResolver } from './resolver.ts';

/**
 * What may serve of one upstream now. That a service has no instance is
 * confirmed before it is returned.
 *
 * @throws ConsulError when it cannot be told
 */
export async function fetchUpstream(
  client: ConsulClient,
  { service, filter, health }: UpstreamConfig,
  consistency: Consistency,
  signal: AbortSignal,
): Promise<Interpretation> {
  const { entries } = await client.health({ service, filter, consistency }, signal);
  const sure =
    entries.length > 0 ? entries : await confirmEmpty(client, { service, filter }, signal);
  const unresolved: string[] = [];
  const resolver = createResolver((name, error) => unresolved.push(`${name}: ${error.message}`));
  const answer = await interpret(sure, health, resolver);
  if (answer.doubt !== undefined) throw new ConsulError(answer.doubt);
  return { ...answer, malformed: [...answer.malformed, ...unresolved] };
}
