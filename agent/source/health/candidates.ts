import { isIP } from 'node:net';
import { peerAddress } from '../../state/address.ts';
import type { Balance } from '../../state/balances.ts';
import type { Peers } from '../../state/document.ts';
import { type Instance, type Reading, readInstances } from './instance.ts';
import type { Resolver } from './resolver.ts';
import type { Candidate } from './serving.ts';

export interface Candidates {
  candidates: Candidate[];
  /** How many instances the answer has, whatever their health. */
  instances: number;
  /** One line for each instance that was left out. */
  malformed: string[];
  /** One line for each setting of an instance that cannot be used. */
  faults: string[];
  /** How instances want the upstream to be balanced, those with the lowest ID first. */
  balances: Balance[];
  /** Nothing may change as yet: none can be used before a look-up has ended. */
  awaits: boolean;
  /**
   * Why nothing may change because of this answer: it has instances, and none
   * of them can be used.
   */
  doubt: string | undefined;
  /** There are host names among them, whose addresses may change. */
  hasNames: boolean;
}

/**
 * Who may serve of an answer of `/v1/health/service`, with what is known of the
 * host names now.
 *
 * @param earlier peers of before, by which a new host name may be known
 * @param reading as `readInstances` takes it
 */
export function candidatesOf(
  entries: unknown[],
  resolver: Pick<Resolver, 'resolve'>,
  earlier: Peers = {},
  reading?: Reading,
): Candidates {
  const { instances, malformed, faults } = readInstances(entries, reading);
  const names = hostNames(instances);
  const { addresses, awaited } = resolver.resolve(names, earlierAddresses(instances, earlier));
  const candidates = toCandidates(instances, addresses);
  const unusable = entries.length > 0 && candidates.length === 0;
  const awaits = unusable && awaited.length > 0;
  const why = malformed[0] ?? `${names.slice(0, 3).join(', ')} cannot be resolved`;
  return {
    candidates,
    instances: entries.length,
    malformed,
    faults,
    balances: instances.flatMap(({ balance }) => balance ?? []),
    awaits,
    hasNames: names.length > 0,
    doubt:
      unusable && !awaits ? `none of ${entries.length} instances can be used: ${why}` : undefined,
  };
}

/**
 * @param addresses of each host name; one without any is left out
 * @returns a candidate for each address, as nginx uses every address of a name
 */
export function toCandidates(
  instances: Instance[],
  addresses: ReadonlyMap<string, string[]>,
): Candidate[] {
  return instances.flatMap(({ host, port, health, peer, passing }) => {
    const ips = isIP(host) === 0 ? (addresses.get(host) ?? []) : [host];
    return ips.flatMap((ip) => {
      const address = peerAddress(ip, port);
      return address === undefined ? [] : [{ address, health, peer, passing }];
    });
  });
}

/** The host names among them. */
export function hostNames(instances: Instance[]): string[] {
  return [...new Set(instances.map(({ host }) => host).filter((host) => isIP(host) === 0))];
}

/**
 * The addresses that instances by name had among peers of before, by host name,
 * for as long as a look-up has not said better.
 */
export function earlierAddresses(instances: Instance[], peers: Peers): Map<string, string[]> {
  const byId = new Map<string | undefined, string[]>();
  for (const [key, { id }] of Object.entries(peers)) byId.set(id, [...(byId.get(id) ?? []), key]);
  const earlier = new Map<string, string[]>();
  for (const { host, port, peer } of instances) {
    if (isIP(host) !== 0) continue;
    const suffix = `:${port}`;
    const keys = (byId.get(peer.id) ?? []).filter((key) => key.endsWith(suffix));
    const ips = keys.map((key) => key.slice(0, -suffix.length).replace(/^\[|\]$/g, ''));
    earlier.set(host, [...(earlier.get(host) ?? []), ...ips]);
  }
  return earlier;
}
