import { type HealthPolicy, type Serving, serving } from '../table/serving.ts';
import { hostNames, readInstances, toCandidates } from './instance.ts';
import type { Resolver } from './resolver.ts';

export interface Interpretation extends Serving {
  /** How many instances the answer has, whatever their health. */
  instances: number;
  /** Host names among their addresses. */
  names: string[];
  /** One line for each instance that was left out. */
  malformed: string[];
  /**
   * Why nothing may change because of this answer: it has instances, and none
   * of them can be used.
   */
  doubt: string | undefined;
}

/** What an answer of `/v1/health/service` means for the peers. */
export async function interpret(
  entries: unknown[],
  policy: HealthPolicy,
  resolver: Resolver,
): Promise<Interpretation> {
  const { instances, malformed } = readInstances(entries);
  const names = hostNames(instances);
  const candidates = toCandidates(instances, await resolver.resolve(names));
  const unusable = entries.length > 0 && candidates.length === 0;
  const why = malformed[0] ?? `${names.join(', ')} cannot be resolved`;
  return {
    ...serving(candidates, policy),
    instances: entries.length,
    names,
    malformed,
    doubt: unusable ? `none of ${entries.length} instances can be used: ${why}` : undefined,
  };
}
