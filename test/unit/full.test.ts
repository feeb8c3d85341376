// A target whose table has room for so many peers: whatever is asked of it, no
// step takes the last peer that serves before another is in, all that leaves
// leaves, and no more is left out than must be.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { AdminClient } from '../../agent/openresty/admin.ts';
import { AdminError } from '../../agent/openresty/error.ts';
import { push } from '../../agent/openresty/push.ts';
import type { Document, Peer, Upstream } from '../../agent/state/document.ts';
import { applyToDocument, diffDocuments } from '../../agent/state/parts.ts';

const { signal } = new AbortController();

/** The bytes of a peer count as its room: what is long takes more of it. */
function room({ upstreams }: Document): number {
  let sum = 0;
  for (const { peers } of Object.values(upstreams)) {
    for (const peer of Object.values(peers)) sum += 1 + (peer.id?.length ?? 0);
  }
  return sum;
}

function serves(upstream: Upstream | undefined): boolean {
  const all = Object.values(upstream?.peers ?? {});
  return all.some((peer: Peer) => peer.weight !== 0 && peer.drain !== true);
}

interface Run {
  has: Document;
  requests: number;
  refused: string[];
}

/** Pushes to a target that takes what shrinks, and else what fits. */
async function run(from: Document, to: Document, capacity: number): Promise<Run> {
  let has = from;
  let requests = 0;
  const client = {
    patch: async (patch) => {
      requests += 1;
      const next = applyToDocument(has, patch);
      const isGrowing = room(next) > room(has);
      if (isGrowing && room(next) > capacity) throw new AdminError('openresty/full', 'full');
      for (const name of Object.keys(patch.upstreams)) {
        if (serves(to.upstreams[name]) && serves(has.upstreams[name])) {
          assert(serves(next.upstreams[name]), `${name} was emptied`);
        }
      }
      has = next;
      return `"x.${requests}"`;
    },
  } as Pick<AdminClient, 'patch'> as AdminClient;
  const patch = diffDocuments(from, to) ?? { upstreams: {} };
  const { mirror, refused } = await push(client, { document: from, etag: '"x.0"' }, patch, signal);
  assert.deepEqual(mirror.document, has);
  return { has, requests, refused: [...refused.keys()] };
}

const plain = { noNullPrototype: true };
const peer = fc.record(
  { weight: fc.integer({ min: 0, max: 2 }), drain: fc.boolean(), id: fc.constantFrom('x', 'xxxx') },
  { ...plain, requiredKeys: [] },
);
const peers = fc.dictionary(
  fc.integer({ min: 0, max: 30 }).map((n) => `10.0.0.${n}:80`),
  peer,
  { ...plain, maxKeys: 30 },
);
const document: fc.Arbitrary<Document> = fc.record(
  {
    upstreams: fc.record(
      { web: fc.record({ peers }, plain), api: fc.record({ peers }, plain) },
      { ...plain, requiredKeys: [] },
    ),
  },
  plain,
);

test('whatever fits', async () => {
  await fc.assert(
    fc.asyncProperty(document, document, fc.nat({ max: 40 }), async (from, to, spare) => {
      const capacity = room(from) + spare;
      const { has, refused } = await run(from, to, capacity);
      if (refused.length === 0) assert.deepEqual(has, to);
      for (const [name, upstream] of Object.entries(has.upstreams)) {
        const wanted = Object.keys(to.upstreams[name]?.peers ?? {});
        const stale = Object.keys(upstream.peers).filter((key) => !wanted.includes(key));
        // One of those that left may be all that there is, while nobody can come.
        assert(stale.length <= (serves(to.upstreams[name]) ? 1 : 0), `${name}: ${stale} stayed`);
        for (const key of stale) delete upstream.peers[key];
        if (stale.length > 0) assert(!serves(upstream), `${name}: ${stale} stayed`);
      }
      if (room(to) <= Math.min(capacity, room(from))) assert.deepEqual(refused, []);
    }),
    { numRuns: 500 },
  );
});

function many(from: number, to: number): Document {
  const upstream: Upstream = { peers: {} };
  for (let i = from; i < to; i += 1) upstream.peers[`10.0.${i >> 8}.${i & 255}:80`] = {};
  return { upstreams: { web: upstream } };
}

test('what fits of a thousand is found in few requests', async () => {
  for (const spare of [0, 1, 333, 500, 998]) {
    const { has, requests } = await run(many(0, 5), many(5, 1004), 5 + spare);
    assert.deepEqual(Object.keys(has.upstreams.web?.peers ?? {}).length, Math.min(5 + spare, 999));
    assert(requests < 40, `${requests} requests for ${spare}`);
  }
});
