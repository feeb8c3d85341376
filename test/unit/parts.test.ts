import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Document } from '../../agent/table/document.ts';
import { applyToDocument, diffDocuments, parts } from '../../agent/table/parts.ts';

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
    fc.property(document, document, fc.integer({ min: 2, max: 9 }), (from, to, limit) => {
      const patch = diffDocuments(from, to);
      if (patch === undefined) return;
      let result = from;
      for (const part of parts(patch, limit)) {
        const sizes = Object.values(part.upstreams).map(
          (upstream) => 1 + Object.keys(upstream?.peers ?? {}).length,
        );
        assert(sizes.reduce((sum, size) => sum + size, 0) <= limit);
        result = applyToDocument(result, part);
      }
      assert.deepEqual(result, to);
    }),
  );
});

test('what fits is one part', () => {
  const patch = { upstreams: { web: { owner: 'a', peers: { '10.0.0.1:80': {} } }, api: null } };
  assert.deepEqual(parts(patch, 1000), [patch]);
});

test('new peers come before those that go, and the settings with the first', () => {
  const patch = {
    upstreams: {
      web: {
        balance: 'random' as const,
        peers: { '10.0.0.1:80': null, '10.0.0.2:80': null, '10.0.0.3:80': {}, '10.0.0.4:80': {} },
      },
    },
  };
  assert.deepEqual(parts(patch, 3), [
    {
      upstreams: {
        web: { balance: 'random', peers: { '10.0.0.3:80': {}, '10.0.0.4:80': {} } },
      },
    },
    { upstreams: { web: { peers: { '10.0.0.1:80': null, '10.0.0.2:80': null } } } },
  ]);
});
