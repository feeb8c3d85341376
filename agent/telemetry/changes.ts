import type { Peers } from '../state/document.ts';
import { diff, type JsonObject } from '../state/merge-patch.ts';

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

/** @returns such as `+10.0.0.5:8080 −10.0.0.6:8080 ~10.0.0.7:8080` */
export function describeChanges({ added, removed, changed }: PeerChanges): string {
  return [list('+', added), list('−', removed), list('~', changed)].flat().join(' ');
}

/** As many as a line of a log can bear. */
function list(sign: string, addresses: string[], most = 8): string[] {
  const shown = addresses.slice(0, most).map((address) => `${sign}${address}`);
  if (addresses.length > most) shown.push(`${sign}${addresses.length - most} more`);
  return shown;
}
