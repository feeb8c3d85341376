import type { Peers } from './document.ts';
import { diff, type JsonObject } from './merge-patch.ts';

/** By address. */
export interface PeerChanges {
  added: string[];
  removed: string[];
  changed: string[];
}

/** @returns undefined when the peers are equal */
export function peerChanges(from: Peers, to: Peers): PeerChanges | undefined {
  const patch = diff(from as JsonObject, to as JsonObject);
  if (patch === undefined) return undefined;
  const changes: PeerChanges = { added: [], removed: [], changed: [] };
  for (const [address, peer] of Object.entries(patch)) {
    if (peer === null) changes.removed.push(address);
    else if (Object.hasOwn(from, address)) changes.changed.push(address);
    else changes.added.push(address);
  }
  return changes;
}
