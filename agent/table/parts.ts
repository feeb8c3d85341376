import type { Document, Peer, Upstream } from './document.ts';
import { apply, diff, type JsonObject } from './merge-patch.ts';

/** A merge patch of the document. */
export interface DocumentPatch {
  upstreams: Record<string, UpstreamPatch | null>;
}

export type UpstreamPatch = { [K in keyof Upstream]?: unknown } & {
  peers?: Record<string, { [K in keyof Peer]?: unknown } | null>;
};

/** @returns undefined when the two documents are equal. */
export function diffDocuments(from: Document, to: Document): DocumentPatch | undefined {
  return diff(from as unknown as JsonObject, to as unknown as JsonObject) as
    | DocumentPatch
    | undefined;
}

/** The document after the patch. */
export function applyToDocument(document: Document, patch: DocumentPatch): Document {
  return apply(
    document as unknown as JsonObject,
    patch as unknown as JsonObject,
  ) as unknown as Document;
}

/**
 * Cuts a patch into parts to be applied one after the other, so that a large
 * one does not hold up an nginx worker.
 *
 * An upstream's settings go with its first peers. Its new peers come before
 * those that go: whichever part is the last to arrive, someone serves.
 *
 * @param limit the most peers in one part; an upstream counts as one more
 */
export function parts(patch: DocumentPatch, limit: number): DocumentPatch[] {
  const done: DocumentPatch[] = [];
  let open: [string, UpstreamPatch | null][] = [];
  let size = 0;
  const close = () => {
    if (open.length > 0) done.push({ upstreams: Object.fromEntries(open) });
    open = [];
    size = 0;
  };
  for (const [name, upstream] of Object.entries(patch.upstreams)) {
    for (const piece of pieces(upstream, limit - 1)) {
      const weight = 1 + Object.keys(piece?.peers ?? {}).length;
      if (size + weight > limit) close();
      open.push([name, piece]);
      size += weight;
    }
  }
  close();
  return done;
}

function pieces(upstream: UpstreamPatch | null, limit: number): (UpstreamPatch | null)[] {
  const all = Object.entries(upstream?.peers ?? {});
  if (upstream === null || all.length <= limit) return [upstream];
  const ordered = [
    ...all.filter(([, peer]) => peer !== null),
    ...all.filter(([, peer]) => peer === null),
  ];
  const result: UpstreamPatch[] = [];
  for (let i = 0; i < ordered.length; i += limit) {
    const peers = Object.fromEntries(ordered.slice(i, i + limit));
    result.push(i === 0 ? { ...upstream, peers } : { peers });
  }
  return result;
}
