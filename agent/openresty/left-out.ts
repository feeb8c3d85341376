import { type Document, entry } from '../state/document.ts';
import { isEqual, type Json } from '../state/merge-patch.ts';
import type { DocumentPatch, UpstreamPatch } from '../state/parts.ts';
import { brief } from '../util/text.ts';

/** What a target says is wrong with a patch. */
export interface Fault {
  /** JSON pointer (RFC 6901). */
  pointer: string;
  detail: string;
}

interface Piece {
  /** What was refused of the patch. */
  change: Json;
  why: string;
}

/**
 * What of an upstream's change a target would not have: peers by address, and
 * all of its own settings as one piece.
 */
export type LeftOut = ReadonlyMap<string, Piece>;

/** No address. */
const settingsKey = 'its settings';

/** In one line of the log. */
const mostShown = 10;

/**
 * The pieces of a patch that a target's pointers name, by upstream. An upstream
 * that is new does not come without its settings, so these are no piece of it.
 */
export function blame(
  patch: DocumentPatch,
  current: Document,
  faults: Fault[],
): Map<string, LeftOut> {
  const blamed = new Map<string, Map<string, Piece>>();
  for (const { pointer, detail } of faults) {
    const [root, name = '', ...path] = steps(pointer);
    const change = entry(patch.upstreams, name);
    if (root !== 'upstreams' || change === undefined || change === null) continue;
    const found = find(change, path, entry(current.upstreams, name) !== undefined);
    if (found === undefined) continue;
    const pieces = blamed.get(name) ?? new Map<string, Piece>();
    pieces.set(found.key, { change: found.change, why: detail });
    blamed.set(name, pieces);
  }
  return blamed;
}

function steps(pointer: string): string[] {
  const [, ...escaped] = pointer.split('/');
  return escaped.map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'));
}

/** @param path of what is wrong, within the upstream */
function find(
  change: UpstreamPatch,
  [field, address]: string[],
  isThere: boolean,
): { key: string; change: Json } | undefined {
  const { peers = {}, ...settings } = change;
  if (field === 'peers') {
    if (address === undefined || !Object.hasOwn(peers, address)) return undefined;
    return { key: address, change: peers[address] as Json };
  }
  if (!isThere || Object.keys(settings).length === 0) return undefined;
  return { key: settingsKey, change: settings as Json };
}

/**
 * An upstream's change without these pieces, where it still holds them as they
 * were refused.
 *
 * @returns undefined when nothing else is in it
 */
export function without(
  change: UpstreamPatch | null,
  leftOut: LeftOut | undefined,
): UpstreamPatch | null | undefined {
  if (change === null || leftOut === undefined) return change;
  const { peers, ...settings } = change;
  const isOut = (key: string, value: unknown) => isEqual(leftOut.get(key)?.change, value as Json);
  const kept = isOut(settingsKey, settings) ? {} : settings;
  if (peers === undefined) return Object.keys(kept).length === 0 ? undefined : kept;
  const stay = Object.entries(peers).filter(([address, peer]) => !isOut(address, peer));
  if (stay.length === 0 && Object.keys(kept).length === 0) return undefined;
  return { ...kept, peers: Object.fromEntries(stay) };
}

/** Those of the pieces that a change is about, as they were refused or otherwise. */
export function within(change: UpstreamPatch | null, leftOut: LeftOut): LeftOut {
  const { peers = {}, ...settings } = change ?? {};
  const hasSettings = Object.keys(settings).length > 0;
  return new Map(
    [...leftOut].filter(([key]) => (key === settingsKey ? hasSettings : Object.hasOwn(peers, key))),
  );
}

/** One line for people. */
export function describe(name: string, target: string, leftOut: LeftOut): string {
  const shown = [...leftOut]
    .slice(0, mostShown)
    .map(([key, { why }]) => `${key} (${brief(why, 200)})`);
  const more = leftOut.size - shown.length;
  const list = `${shown.join(', ')}${more > 0 ? ` and ${more} more` : ''}`;
  return `${name}: left out by OpenResty at ${target}: ${list}`;
}
