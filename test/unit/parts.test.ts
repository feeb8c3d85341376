import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Document } from '../../agent/state/document.ts';
import { applyToDocument, diffDocuments, parts } from '../../agent/state/parts.ts';

const address = fc.integer({ min: 0, max: 40 }).map((n) => `10.0.0.${n}:80`);
const plain = { noNullPrototype: true };
const peer = fc.record({ weight: fc.integer({ min: 0, max: 2 }) }, plain);
const peers = fc.dictionary(address, peer, plain);
const document: fc.Arbitrary<Document> = fc.record(
  {
    upstreams: fc.dictionary(
      fc.constantFrom('web', 'api', 'toString'),
      fc.record({ owner: fc.constantFrom('a', 'b'), peers }, plain),
      plain,
    ),
  },
  plain,
);

test('the parts, one after the other, do what the patch does', () => {
  fc.assert(
    fc.property(document, document, fc.integer({ min: 60, max: 300 }), (from, to, limit) => {
      const patch = diffDocuments(from, to);
      if (patch === undefined) return;
      let result = from;
      for (const part of parts(from, patch, limit)) {
        const sizes = Object.values(part.upstreams).map(
          (upstream) => Object.keys(upstream?.peers ?? {}).length,
        );
        const isOnePeer = sizes.length === 1 && (sizes[0] ?? 0) <= 1;
        assert(isOnePeer || Buffer.byteLength(JSON.stringify(part)) <= limit);
        result = applyToDocument(result, part);
      }
      assert.deepEqual(result, to);
    }),
  );
});

test('what fits is one part', () => {
  const patch = { upstreams: { web: { owner: 'ä', peers: { '10.0.0.1:80': {} } }, api: null } };
  const limit = Buffer.byteLength(JSON.stringify(patch)) + 1;
  assert.deepEqual(parts({ upstreams: {} }, patch, limit), [patch]);
  assert.equal(parts({ upstreams: {} }, patch, limit - 2).length, 2);
});

test('those that come and those that go share each part', () => {
  const from = { upstreams: { web: { peers: { '10.0.0.1:80': {}, '10.0.0.2:80': {} } } } };
  const patch = {
    upstreams: {
      web: {
        balance: 'random' as const,
        peers: { '10.0.0.1:80': null, '10.0.0.2:80': null, '10.0.0.4:80': {}, '10.0.0.3:80': {} },
      },
    },
  };
  assert.deepEqual(parts(from, patch, 96), [
    {
      upstreams: {
        web: { balance: 'random', peers: { '10.0.0.3:80': {}, '10.0.0.2:80': null } },
      },
    },
    { upstreams: { web: { peers: { '10.0.0.4:80': {}, '10.0.0.1:80': null } } } },
  ]);
});

test('what shrinks comes before what grows', () => {
  const from = { upstreams: { old: { peers: {} }, api: { peers: { '10.0.0.1:80': {} } } } };
  const patch = {
    upstreams: {
      web: { peers: { '10.0.0.2:80': {} } },
      api: { peers: { '10.0.0.1:80': null } },
      old: null,
    },
  };
  const order = parts(from, patch, 64).flatMap((part) => Object.keys(part.upstreams));
  assert.deepEqual(order, ['api', 'old', 'web']);
});
