import { entry, putSubset, subset } from '../state/document.ts';
import {
  applyToDocument,
  type DocumentPatch,
  diffDocuments,
  parts,
  portions,
  removals,
  type UpstreamPatch,
} from '../state/parts.ts';
import type { AdminClient, Mirror } from './admin.ts';
import { AdminError } from './error.ts';
import { blame, type LeftOut, without } from './left-out.ts';

/** So that one part takes a worker a few milliseconds, and little room beside what it replaces. */
const bytesInPart = 32 * 1024;

/** What a target would not have of an upstream. */
export interface Refusal {
  error: AdminError;
  /** What is still to be sent. */
  rest: UpstreamPatch | null;
  /** For people. */
  message: string;
}

export interface Pushed {
  mirror: Mirror;
  /** Upstreams of which something was taken, but those that were removed. */
  changed: string[];
  removed: string[];
  refused: Map<string, Refusal>;
  /** By upstream, what was refused alone. */
  leftOut: Map<string, LeftOut>;
}

/**
 * Brings a target from the document that it has to the one desired, in parts,
 * each on the condition that nobody else wrote in between. When a part is
 * refused, it goes without the peers and settings that the target names; where
 * it names none, upstream by upstream, so that a bad one does not hold up the
 * others. When the target is full, an upstream goes as far as it fits.
 *
 * @param written hears of each part that the target took, with the names of its upstreams
 * @throws AdminError for anything that is not about one upstream; then what
 *   the target has must be read again
 */
export async function push(
  client: AdminClient,
  start: Mirror,
  patch: DocumentPatch,
  signal: AbortSignal,
  written: (mirror: Mirror, names: string[]) => void = () => {},
): Promise<Pushed> {
  // A copy, so that a part costs what it changes, not what there is.
  let mirror = { ...start, document: { upstreams: { ...start.document.upstreams } } };
  const errors = new Map<string, AdminError>();
  const leftOut = new Map<string, LeftOut>();
  const changed = new Set<string>();
  const removed: string[] = [];

  /** @returns the error when the target will not have it */
  async function send(part: DocumentPatch): Promise<AdminError | undefined> {
    try {
      const etag = await client.patch(part, mirror.etag, signal);
      const names = Object.keys(part.upstreams);
      const { document } = mirror;
      putSubset(document, applyToDocument(subset(document, names), part), names);
      mirror = { document, etag };
      for (const [name, change] of Object.entries(part.upstreams)) {
        if (change === null) removed.push(name);
        else changed.add(name);
      }
      written(mirror, names);
      return undefined;
    } catch (error) {
      if (!(error instanceof AdminError)) throw error;
      // Anything else is not about one upstream.
      if (!isFull(error) && error.code !== 'openresty/invalid') throw error;
      return error;
    }
  }

  /** Where there was no room, what makes some still goes. */
  function isHopeless(name: string, change: UpstreamPatch | null): boolean {
    const error = errors.get(name);
    if (error === undefined) return false;
    return !isFull(error) || !Object.values(change?.peers ?? {}).includes(null);
  }

  function withoutLeftOut(patch: DocumentPatch): DocumentPatch {
    const upstreams = Object.entries(patch.upstreams).flatMap(([name, change]) => {
      const left = without(change, leftOut.get(name));
      return left === undefined ? [] : [[name, left] as const];
    });
    return { upstreams: Object.fromEntries(upstreams) };
  }

  /** @returns whether the target has named something that can be left out */
  function leaveOut(part: DocumentPatch, { faults }: AdminError): boolean {
    const blamed = blame(part, mirror.document, faults);
    for (const [name, pieces] of blamed) {
      leftOut.set(name, new Map([...(leftOut.get(name) ?? []), ...pieces]));
    }
    return blamed.size > 0;
  }

  async function sendOrSplit(whole: DocumentPatch): Promise<void> {
    const upstreams = Object.entries(withoutLeftOut(whole).upstreams).filter(
      (item) => !isHopeless(...item),
    );
    if (upstreams.length === 0) return;
    const part = { upstreams: Object.fromEntries(upstreams) };
    const error = await send(part);
    if (error === undefined) return;
    if (leaveOut(part, error)) return sendOrSplit(part);
    const [first] = upstreams;
    if (first !== undefined && upstreams.length === 1) return fit(...first, error);
    for (const [name, upstream] of upstreams) {
      await sendOrSplit({ upstreams: { [name]: upstream } });
    }
  }

  async function fit(name: string, change: UpstreamPatch | null, why: AdminError): Promise<void> {
    errors.set(name, why);
    if (!isFull(why) || change === null) return;
    const sending = portions(entry(mirror.document.upstreams, name), change);
    for (let next = sending.next(); !next.done; ) {
      const error = await send({ upstreams: { [name]: next.value } });
      if (error !== undefined) errors.set(name, error);
      next = sending.next(error === undefined);
    }
  }

  let todo = patch;
  let rest: DocumentPatch | undefined;
  for (;;) {
    for (const part of parts(mirror.document, todo, bytesInPart)) await sendOrSplit(part);
    const missing =
      errors.size === 0
        ? undefined
        : diffDocuments(mirror.document, applyToDocument(start.document, patch));
    rest = missing && withoutLeftOut(missing);
    if (rest === undefined || removals(rest) >= removals(todo)) break;
    // What has left since may have made room for what was refused before.
    todo = rest;
    for (const [name, error] of errors) if (isFull(error)) errors.delete(name);
  }
  const refused = new Map<string, Refusal>();
  for (const [name, change] of Object.entries(rest?.upstreams ?? {})) {
    const error = errors.get(name);
    if (error === undefined) continue;
    refused.set(name, { error, rest: change, message: messageOf(name, error, change) });
  }
  return { mirror, changed: [...changed], removed, refused, leftOut };
}

export function isFull({ code }: AdminError): boolean {
  return code === 'openresty/full';
}

function messageOf(name: string, error: AdminError, rest: UpstreamPatch | null): string {
  const missing = Object.values(rest?.peers ?? {}).filter((peer) => peer !== null).length;
  if (!isFull(error) || missing === 0) return `${name} was refused: ${error.message}`;
  const what = missing === 1 ? 'peer is' : 'peers are';
  return `${name}: ${missing} new or changed ${what} left out: ${error.message}`;
}
