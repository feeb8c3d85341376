import type { Document } from '../table/document.ts';
import { applyToDocument, type DocumentPatch, diffDocuments, parts } from '../table/parts.ts';
import { type AdminClient, AdminError, type Mirror } from './admin.ts';

/** So that one part takes a worker a few milliseconds. */
const peersInPart = 1000;

/** The target will not have this upstream: not valid, too large a body, or no room. */
const refusals = [413, 422, 507];

export interface Pushed {
  mirror: Mirror;
  refused: Map<string, AdminError>;
}

/**
 * Brings a target from the document that it has to the one wanted, in parts,
 * each on the condition that nobody else wrote in between. When a part is
 * refused, its upstreams go one by one, so that a bad one does not hold up the
 * others.
 *
 * @param written hears of each part that the target took
 * @throws AdminError for anything that is not about one upstream; then what
 *   the target has must be read again
 */
export async function push(
  client: AdminClient,
  start: Mirror,
  patch: DocumentPatch,
  signal: AbortSignal,
  written: (mirror: Mirror) => void = () => {},
): Promise<Pushed> {
  let mirror = start;
  const refused = new Map<string, AdminError>();

  async function send(part: DocumentPatch): Promise<void> {
    const etag = await client.patch(part, mirror.etag, signal);
    mirror = { document: applyToDocument(mirror.document, part), etag };
    written(mirror);
  }

  async function sendOrSplit(part: DocumentPatch): Promise<void> {
    const upstreams = Object.entries(part.upstreams).filter(([name]) => !refused.has(name));
    if (upstreams.length === 0) return;
    try {
      await send({ upstreams: Object.fromEntries(upstreams) });
    } catch (error) {
      if (!(error instanceof AdminError) || !refusals.includes(error.status ?? 0)) throw error;
      const [first] = upstreams;
      if (upstreams.length === 1 && first !== undefined) {
        refused.set(first[0], error);
        return;
      }
      for (const [name, upstream] of upstreams) {
        await sendOrSplit({ upstreams: { [name]: upstream } });
      }
    }
  }

  for (const part of parts(patch, peersInPart)) await sendOrSplit(part);
  return { mirror, refused };
}

/**
 * What is to be sent.
 *
 * @param hold whether to leave an upstream's change out
 * @returns undefined when there is nothing
 */
export function difference(
  from: Document,
  to: Document,
  hold: (name: string, change: unknown) => boolean = () => false,
): DocumentPatch | undefined {
  const patch = diffDocuments(from, to);
  if (patch === undefined) return undefined;
  const sent = Object.entries(patch.upstreams).filter(([name, change]) => !hold(name, change));
  return sent.length === 0 ? undefined : { upstreams: Object.fromEntries(sent) };
}
