import { type Document, entry } from '../state/document.ts';
import type { DocumentPatch, UpstreamPatch } from '../state/parts.ts';

/** In one line of the log. */
const mostShown = 10;

/**
 * What somebody has changed in the upstreams of a target, and we change again.
 *
 * @param before what the target had
 * @param theirs from there to what it has
 * @param ours from there to what it is to have
 * @returns by upstream, for people, such as `+10.0.0.5:80, ~10.0.0.6:80 drain, max_fails`
 */
export function undone(
  before: Document,
  theirs: DocumentPatch,
  ours: DocumentPatch,
): Map<string, string> {
  const found = new Map<string, string>();
  for (const [name, change] of Object.entries(theirs.upstreams)) {
    const back = entry(ours.upstreams, name);
    const had = entry(before.upstreams, name);
    if (change === null) found.set(name, 'it was removed');
    else if (had === undefined) found.set(name, 'it was made');
    else if (back) {
      const pieces = [...settings(change, back), ...peers(change, back, Object.keys(had.peers))];
      const more = pieces.length - mostShown;
      if (more > 0) pieces.splice(mostShown, more, `and ${more} more`);
      if (pieces.length > 0) found.set(name, pieces.join(', '));
    }
  }
  return found;
}

function settings({ peers: _, ...theirs }: UpstreamPatch, ours: UpstreamPatch): string[] {
  return Object.keys(theirs).filter((key) => Object.hasOwn(ours, key));
}

function peers(theirs: UpstreamPatch, ours: UpstreamPatch, had: string[]): string[] {
  const known = new Set(had);
  return Object.entries(theirs.peers ?? {}).flatMap(([address, peer]) => {
    const back = entry(ours.peers ?? {}, address);
    if (back === undefined) return [];
    if (peer === null) return `-${address}`;
    if (!known.has(address)) return `+${address}`;
    const fields = Object.keys(peer).filter((key) => back === null || Object.hasOwn(back, key));
    return fields.length === 0 ? [] : [`~${address}`, ...fields.sort()].join(' ');
  });
}
