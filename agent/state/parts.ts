import { type Document, entry, type Peer, type Upstream } from './document.ts';
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

/** How many upstreams and peers a patch takes out by name. */
export function removals(patch: DocumentPatch): number {
  let count = 0;
  for (const upstream of Object.values(patch.upstreams)) {
    const items = upstream === null ? [null] : Object.values(upstream.peers ?? {});
    count += items.filter((item) => item === null).length;
  }
  return count;
}

/**
 * Cuts a patch into parts to be applied one after the other, so that a large
 * one does not hold up an nginx worker. Upstreams that shrink come before those
 * that may need their room.
 *
 * An upstream's settings go with its first peers; those that come and those
 * that go share each part in proportion.
 *
 * @param from the document that the patch is for
 * @param limit the most bytes of a part as JSON; one peer, with the settings
 *   that it brings along, may have more
 */
export function parts(from: Document, patch: DocumentPatch, limit: number): DocumentPatch[] {
  const done: DocumentPatch[] = [];
  const frame = bytes({ upstreams: {} });
  let open: [string, UpstreamPatch | null][] = [];
  let size = frame;
  const close = () => {
    if (open.length > 0) done.push({ upstreams: Object.fromEntries(open) });
    open = [];
    size = frame;
  };
  const upstreams = Object.entries(patch.upstreams)
    .map(([name, upstream]) => ({ name, upstream, current: entry(from.upstreams, name) }))
    .sort((a, b) => growth(a.current, a.upstream) - growth(b.current, b.upstream));
  for (const { name, upstream, current } of upstreams) {
    for (const piece of pieces(name, current, upstream, limit - frame)) {
      const weight = memberBytes(name, piece);
      if (size + weight > limit) close();
      open.push([name, piece]);
      size += weight;
    }
  }
  close();
  return done;
}

function bytes(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}

/** In an object, with the marks around it. */
function memberBytes(name: string, value: unknown): number {
  return bytes(name) + bytes(value) + 2;
}

/** How many peers more an upstream has after the patch, itself counted as one. */
function growth(current: Upstream | undefined, patch: UpstreamPatch | null): number {
  if (patch === null) return -1 - Object.keys(current?.peers ?? {}).length;
  let more = current === undefined ? 1 : 0;
  for (const [address, peer] of Object.entries(patch.peers ?? {})) {
    if (peer === null) more -= 1;
    else if (entry(current?.peers ?? {}, address) === undefined) more += 1;
  }
  return more;
}

function pieces(
  name: string,
  current: Upstream | undefined,
  patch: UpstreamPatch | null,
  limit: number,
): (UpstreamPatch | null)[] {
  if (patch?.peers === undefined || memberBytes(name, patch) <= limit) return [patch];
  const { settings, enter, leave } = inOrder(current, patch);
  const result: UpstreamPatch[] = [];
  let open: [string, PeerPatch][] = [];
  let first = settings;
  let size = memberBytes(name, { ...settings, peers: {} });
  const close = () => {
    result.push({ ...first, peers: Object.fromEntries(open) });
    open = [];
    first = {};
    size = memberBytes(name, { peers: {} });
  };
  for (const [address, peer] of inProportion<[string, PeerPatch]>(enter, leave)) {
    const weight = memberBytes(address, peer);
    if (open.length > 0 && size + weight > limit) close();
    open.push([address, peer]);
    size += weight;
  }
  close();
  return result;
}

/** One list of both, in which each stretch has its share of each. */
function inProportion<T>(enter: T[], leave: T[]): T[] {
  const all: T[] = [];
  const count = enter.length + leave.length;
  const share = (sent: number) => Math.ceil((sent * enter.length) / count);
  for (let sent = 0; sent < count; sent += 1) {
    const entered = share(sent);
    const from = share(sent + 1) > entered ? enter[entered] : leave[sent - entered];
    if (from !== undefined) all.push(from);
  }
  return all;
}

type PeerPatch = NonNullable<UpstreamPatch['peers']>[string];

interface Order {
  settings: UpstreamPatch;
  /** What changes, then what is new, each by address. */
  enter: [string, PeerPatch][];
  leave: [string, null][];
}

/**
 * The order in which an upstream's peers are sent. A target keeps peers by
 * address, so what is sent together lies together there and needs little room.
 * Where none that serves stays, one that will is the first to come, and one
 * that did the last to go: however the order is cut, someone serves.
 */
function inOrder(current: Upstream | undefined, { peers = {}, ...settings }: UpstreamPatch): Order {
  const had = current?.peers ?? {};
  const has = applyToUpstream(current, { peers }).peers;
  const changes = Object.entries(peers).sort(([a], [b]) => (a < b ? -1 : 1));
  const isLeaving = (change: [string, PeerPatch]): change is [string, null] => change[1] === null;
  const leave = changes.filter(isLeaving);
  const coming = changes.filter((change) => !isLeaving(change));
  const enter = [
    ...coming.filter(([address]) => Object.hasOwn(had, address)),
    ...coming.filter(([address]) => !Object.hasOwn(had, address)),
  ];
  const stays = Object.keys(had).some(
    (address) => takesTraffic(entry(had, address)) && takesTraffic(entry(has, address)),
  );
  if (!stays) {
    const next = enter.findIndex(([address]) => takesTraffic(entry(has, address)));
    if (next > 0) enter.unshift(...enter.splice(next, 1));
    const last = leave.findIndex(([address]) => takesTraffic(entry(had, address)));
    if (last >= 0) leave.push(...leave.splice(last, 1));
  }
  return { settings, enter, leave };
}

function takesTraffic(peer: Peer | undefined): boolean {
  return peer !== undefined && peer.weight !== 0 && peer.drain !== true && peer.down !== true;
}

function serves(upstream: Upstream): boolean {
  return Object.values(upstream.peers).some(takesTraffic);
}

function applyToUpstream(upstream: Upstream | undefined, patch: UpstreamPatch): Upstream {
  const target = upstream ?? { peers: {} };
  return apply(
    target as unknown as JsonObject,
    patch as unknown as JsonObject,
  ) as unknown as Upstream;
}

/**
 * Takes apart a change that does not fit: yields what to send next and is told
 * whether it was taken. All that leaves goes with as much as fits of what comes;
 * only where that alone is too much, by itself and piece by piece. Nothing that
 * is sent leaves an upstream without a peer that serves while others are to
 * come.
 *
 * @param start the upstream as it is; undefined when it is new
 * @param patch what was refused as a whole
 */
export function* portions(
  start: Upstream | undefined,
  patch: UpstreamPatch,
): Generator<UpstreamPatch, void, boolean> {
  let current = start;
  const willServe = serves(applyToUpstream(start, patch));
  const order = inOrder(start, patch);
  let { leave } = order;
  let enter: UpstreamPatch[] = order.enter.map(([address, peer]) => ({
    peers: { [address]: peer },
  }));
  if (Object.keys(order.settings).length > 0) {
    // Of a new upstream they are no step by themselves.
    const first = start === undefined ? enter.splice(0, 1) : [];
    enter.unshift({ ...order.settings, ...first[0] });
  }
  let entering = Math.floor(enter.length / 2);
  let leaving = enter.length > 0 ? leave.length : Math.floor(leave.length / 2);
  while (entering + leaving > 0) {
    const piece = join(enter.slice(0, entering), leave.slice(0, leaving));
    const after = applyToUpstream(current, piece);
    const empties = current !== undefined && serves(current) && !serves(after);
    if (empties && willServe && leaving > 0 && leaving === leave.length) {
      leaving -= 1;
      continue;
    }
    if (yield piece) {
      current = after;
      enter = enter.slice(entering);
      leave = leave.slice(leaving);
      if (leaving > 0 && (leave.length > 0 || entering === 0)) {
        leaving = Math.min(2 * leaving, leave.length);
        entering = leaving === leave.length ? enter.length : 0;
      } else {
        leaving = 0;
        entering = Math.min(entering, enter.length);
      }
    } else if (entering > 0) {
      entering = Math.floor(entering / 2);
    } else {
      leaving = Math.floor(leaving / 2);
    }
  }
}

function join(enter: UpstreamPatch[], leave: [string, null][]): UpstreamPatch {
  const peers = Object.assign({}, ...enter.map((patch) => patch.peers), Object.fromEntries(leave));
  return { ...Object.assign({}, ...enter), peers };
}
