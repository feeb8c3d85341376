import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { apply, diff, type Json, type JsonObject } from '../../agent/state/merge-patch.ts';

/** Few keys, so that two documents have some in common; none holds null. */
const key = fc.constantFrom('a', 'b', 'c', '10.0.0.5:80', '__proto__', 'constructor', '');
const { document } = fc.letrec<{ value: Json; document: JsonObject }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom<Json>(0, 1, '', 'x', true, false),
    fc.array(fc.constantFrom<Json>(1, 'x', { a: 1 }), { maxLength: 2 }),
    tie('document'),
  ),
  document: fc
    .array(fc.tuple(key, tie('value')), { maxLength: 4 })
    .map((entries) => Object.fromEntries(entries) as JsonObject),
}));

function reversed(value: Json): Json {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  const entries = Object.entries(value).reverse();
  return Object.fromEntries(entries.map(([name, inner]) => [name, reversed(inner)]));
}

test('applying the difference of any two documents gives the second', () => {
  fc.assert(
    fc.property(document, document, (a, b) => {
      assert.deepEqual(apply(a, diff(a, b) ?? {}), b);
    }),
    { numRuns: 2000 },
  );
});

test('a document does not differ from itself, in whatever order it is written', () => {
  fc.assert(
    fc.property(document, (a) => {
      assert.equal(diff(a, a), undefined);
      assert.equal(diff(a, reversed(a) as JsonObject), undefined);
    }),
  );
});

test('equal documents have no difference and different ones have some', () => {
  fc.assert(
    fc.property(document, document, (a, b) => {
      let equal = true;
      try {
        assert.deepEqual(a, b);
      } catch {
        equal = false;
      }
      assert.equal(diff(a, b) === undefined, equal);
    }),
  );
});

test('neither diff nor apply changes what it is given', () => {
  fc.assert(
    fc.property(document, document, (a, b) => {
      const before = structuredClone([a, b]);
      apply(a, diff(a, b) ?? {});
      assert.deepEqual([a, b], before);
    }),
  );
});

test('one peer of many is one peer in the patch', () => {
  const peers: JsonObject = {};
  for (let i = 0; i < 1000; i += 1) peers[`10.0.${i >> 8}.${i & 255}:80`] = { weight: 1 };
  const from = { upstreams: { web: { peers }, api: { peers } } };
  const to = {
    upstreams: { web: { peers: { ...peers, '10.0.0.5:80': { weight: 2 } } }, api: { peers } },
  };
  assert.deepEqual(diff(from, to), {
    upstreams: { web: { peers: { '10.0.0.5:80': { weight: 2 } } } },
  });
});

// RFC 7396, appendix A: those cases whose two sides are objects.
const cases: [JsonObject, JsonObject, JsonObject][] = [
  [{ a: 'b' }, { a: 'c' }, { a: 'c' }],
  [{ a: 'b' }, { b: 'c' }, { a: 'b', b: 'c' }],
  [{ a: 'b' }, { a: null }, {}],
  [{ a: 'b', b: 'c' }, { a: null }, { b: 'c' }],
  [{ a: ['b'] }, { a: 'c' }, { a: 'c' }],
  [{ a: 'c' }, { a: ['b'] }, { a: ['b'] }],
  [{ a: { b: 'c' } }, { a: { b: 'd', c: null } }, { a: { b: 'd' } }],
  [{ a: [{ b: 'c' }] }, { a: [1] }, { a: [1] }],
  [{ e: null }, { a: 1 }, { e: null, a: 1 }],
  [{}, { a: { bb: { ccc: null } } }, { a: { bb: {} } }],
];

test('apply does as the examples of RFC 7396', () => {
  for (const [target, patch, result] of cases) assert.deepEqual(apply(target, patch), result);
});
