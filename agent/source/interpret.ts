import type { Peers } from '../state/document.ts';
import { earlierAddresses, hostNames, readInstances, toCandidates } from './instance.ts';
import type { Resolver } from './resolver.ts';
import { type HealthPolicy, type Serving, serving } from './serving.ts';

export interface Interpretation extends Serving {
  /** How many instances the answer has, whatever their health. */
  instances: number;
  /** The nodes that they are on. */
  nodes: string[];
  /** One line for each instance that was left out. */
  malformed: string[];
  /** Nothing may change as yet: none can be used before a look-up has ended. */
  awaits: boolean;
  /**
   * Why nothing may change because of this answer: it has instances, and none
   * of them can be used.
   */
  doubt: string | undefined;
}

/**
 * What an answer of `/v1/health/service` means for the peers, with what is known
 * of the host names now.
 *
 * @param earlier peers of before, by which a new host name may be known
 * @param port as `readInstances` takes it
 */
export function interpret(
  entries: unknown[],
  policy: HealthPolicy,
  resolver: Pick<Resolver, 'resolve'>,
  earlier: Peers = {},
  port?: string,
): Interpretation {
  const { instances, malformed } = readInstances(entries, port);
  const names = hostNames(instances);
  const { addresses, awaited } = resolver.resolve(names, earlierAddresses(instances, earlier));
  const candidates = toCandidates(instances, addresses);
  const unusable = entries.length > 0 && candidates.length === 0;
  const awaits = unusable && awaited.length > 0;
  const why = malformed[0] ?? `${names.slice(0, 3).join(', ')} cannot be resolved`;
  return {
    ...serving(candidates, policy),
    instances: entries.length,
    nodes: nodesOf(entries),
    malformed,
    awaits,
    doubt:
      unusable && !awaits ? `none of ${entries.length} instances can be used: ${why}` : undefined,
  };
}

/** The nodes of all entries, malformed ones too. */
function nodesOf(entries: unknown[]): string[] {
  const names = entries.map((raw) => (raw as { Node?: { Node?: unknown } } | null)?.Node?.Node);
  return [...new Set(names.filter((name) => typeof name === 'string' && name !== ''))] as string[];
}
