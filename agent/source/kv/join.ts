import type { Peer } from '../../state/document.ts';
import { brief } from '../../util/text.ts';
import type { Candidates } from '../health/candidates.ts';
import type { Candidate } from '../health/serving.ts';
import type { Reading } from './reading.ts';

/**
 * What KV and Consul's health say together: KV who there is and with what, health
 * whether it is well, and its ID and zone. A peer that no instance has is left out:
 * nobody knows whether it is well.
 *
 * @param service for messages
 */
export function join({ written, peers, malformed }: Reading, found: Candidates, service: string) {
  const known = new Set(found.candidates.map(({ address }) => address));
  const unknown = Object.keys(peers).filter((address) => !known.has(address));
  const candidates = found.candidates.flatMap((candidate): Candidate[] => {
    const peer = Object.hasOwn(peers, candidate.address) ? peers[candidate.address] : undefined;
    return peer === undefined ? [] : [joined(candidate, peer)];
  });
  return {
    ...found,
    candidates,
    instances: written === 0 ? 0 : candidates.length,
    malformed: [
      ...malformed,
      ...found.malformed,
      ...unknown.map((address) => `${address}: no instance of ${brief(service)} has this address`),
    ],
  };
}

function joined({ address, health, peer: { id, zone } }: Candidate, of: Peer): Candidate {
  const own = { ...(id === undefined ? {} : { id }), ...(zone === undefined ? {} : { zone }) };
  const { weight = 1 } = of;
  return { address, health, peer: { ...own, ...of, weight }, passing: weight };
}
