// Any JSON value whatever may be an entry of Consul's answer. Two good instances
// beside it serve all the same, and nothing throws. RELOADLESS_RUNS=100000 makes
// it a long run, RELOADLESS_SEED another one.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { candidatesOf } from '../../agent/source/health/candidates.ts';
import { readInstances } from '../../agent/source/health/instance.ts';
import { createResolver } from '../../agent/source/health/resolver.ts';
import { isSelected } from '../../agent/source/health/select.ts';
import { serving } from '../../agent/source/health/serving.ts';
import { peerChanges } from '../../agent/state/changes.ts';
import type { Document } from '../../agent/state/document.ts';
import { siftDocument } from '../../agent/state/document-schema.ts';
import { diffDocuments } from '../../agent/state/parts.ts';
import { show } from '../../agent/util/text.ts';

const { RELOADLESS_RUNS: numRuns = 2000, RELOADLESS_SEED: seed = 1 } = process.env;
const runs = { numRuns: Number(numRuns), seed: Number(seed) };

function entry(id: string, port: number) {
  return {
    Node: { Node: 'n1', Address: '10.0.0.1' },
    Service: { ID: id, Address: '10.0.0.5', Port: port },
    Checks: [],
  };
}

const reading = {
  tagged_address: 'wan',
  require_check: false,
  settings_from: ['meta', 'tags'],
} as const;

const good = [entry('a', 1001), entry('z', 1002)];
const addresses = ['10.0.0.5:1001', '10.0.0.5:1002'];

function nested(open: string, close: string, depth: number): string {
  return `${open.repeat(depth)}1${close.repeat(depth)}`;
}

const depth = fc.constantFrom(10, 5000, 50_000);

/** Texts of JSON, since some have no value that `JSON.stringify` could write. */
const nastyString = fc.oneof(
  fc.constant('"\\ud800"'),
  fc.constantFrom(
    '""',
    '"__proto__"',
    '"x\\udc00\\u0000\\u001b[31m\\u009b"',
    '"fe80::1%eth0"',
    '"::ffff:127.0.0.1"',
    '"http://10.0.0.5:80/"',
  ),
  fc.integer({ min: 80, max: 300 }).map((length) => JSON.stringify('€'.repeat(length))),
  fc.constant(JSON.stringify('x'.repeat(100_000))),
  fc.string({ unit: 'binary' }).map((text) => JSON.stringify(text)),
);

const nasty = fc.oneof(
  nastyString,
  fc.constantFrom('1e999', '-1e999', '-0', '1.5', '65536'),
  fc.constantFrom(
    '{"toString":1,"valueOf":1}',
    '{"toString":{},"toJSON":1}',
    '{"__proto__":{"toString":null}}',
    '{"__proto__":null,"constructor":{"prototype":1}}',
  ),
  depth.map((levels) => nested('[', ']', levels)),
  depth.map((levels) => nested('{"":', '}', levels)),
  fc.json({ stringUnit: 'binary' }),
);

function object(members: [string, string][]): string {
  return `{${members.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(',')}}`;
}

const key = fc.oneof(
  fc.constantFrom('zone', 'backup', 'reloadless-weight', 'reloadless-zone', 'reloadless-balance'),
  fc.constantFrom('__proto__', 'constructor', 'toString', '\ud800', ''),
  fc.string({ unit: 'binary' }),
);
const meta = fc
  .array(fc.tuple(key, fc.oneof({ weight: 4, arbitrary: nastyString }, nasty)), { maxLength: 3 })
  .map(object);

/** Mostly the good one, so that an entry with one nasty value comes as far as it can. */
function mostly(good: string, ...bad: fc.Arbitrary<string>[]): fc.Arbitrary<string> {
  return fc.oneof({ weight: 6, arbitrary: fc.constant(good) }, ...bad);
}

/** An entry that is whole but for what is nasty in it. */
const nearly = fc
  .record({
    ID: mostly('"m"', nastyString, nastyString, nasty),
    Address: mostly('"10.0.0.6"', nasty),
    Port: mostly('1003', nasty),
    Weights: mostly('null', nasty),
    Meta: mostly('{}', meta, meta, nasty),
    Tags: mostly('[]', nasty),
    TaggedAddresses: mostly(
      'null',
      nasty,
      nasty.map((value) => `{"wan":${value}}`),
      nasty.map((value) => `{"wan":{"Address":"10.0.0.6","Port":${value}}}`),
    ),
    Node: mostly('"n1"', nasty),
    NodeAddress: mostly('"10.0.0.1"', nasty),
    Checks: mostly(
      '[]',
      nasty,
      nasty.map((value) => `[{"CheckID":"x","Status":${value}}]`),
    ),
  })
  .map(({ Node, NodeAddress, Checks, ...service }) =>
    object([
      [
        'Node',
        object([
          ['Node', Node],
          ['Address', NodeAddress],
        ]),
      ],
      ['Service', object(Object.entries(service))],
      ['Checks', Checks],
    ]),
  );

/** As it comes over the wire. */
const anyEntry = fc
  .oneof({ weight: 4, arbitrary: nearly }, nasty)
  .map((text): unknown => JSON.parse(text));

function document(peers: Document['upstreams'][string]['peers']): Document {
  return { upstreams: { web: { peers } } };
}

test('any value beside two good instances: the two serve, and all that serves may be pushed', async () => {
  await fc.assert(
    fc.asyncProperty(anyEntry, async (other) => {
      const resolver = createResolver({
        lookup: async () => ['10.0.0.7'],
        changed: () => {},
        failed: () => {},
      });
      const policy = { min_health: 'passing', panic_threshold: 0 } as const;
      const entries = [good[0], other, good[1]];
      candidatesOf(entries, resolver, {}, reading);
      await resolver.settled();
      const found = candidatesOf(entries, resolver, {}, reading);
      const { candidates, malformed, doubt, faults } = found;
      const { peers } = serving(candidates, policy);
      assert.equal(doubt, undefined);
      assert.deepEqual(
        addresses.filter((address) => Object.hasOwn(peers, address)),
        addresses,
      );
      // What does not become a candidate is said.
      assert.equal(candidates.length + malformed.length, entries.length);
      for (const line of [...malformed, ...faults]) {
        assert(line.length < 1000, `a line of ${line.length}`);
        assert.doesNotMatch(line, /\p{Cc}/u);
      }
      assert.deepEqual(siftDocument(document(peers)), { document: document(peers), leftOut: [] });
      const patch = JSON.stringify(diffDocuments(document({}), document(peers)));
      // cjson does not take half of a surrogate pair.
      assert.doesNotMatch(patch, /\\ud[89a-f]/i);
      peerChanges({}, peers);
    }),
    runs,
  );
});

test('neither does the order of the answer matter', () => {
  fc.assert(
    fc.property(anyEntry, (other) => {
      const forth = readInstances([good[0], other, good[1]]);
      const back = readInstances([good[1], other, good[0]]);
      assert.deepEqual(forth, back);
    }),
    { ...runs, numRuns: runs.numRuns / 10 },
  );
});

test('any value is selected or not', () => {
  const selection = {
    tags: ['a'],
    tags_any: ['b'],
    tags_none: ['c'],
    meta: { d: '' },
    meta_none: {},
  };
  fc.assert(
    fc.property(anyEntry, (value) => {
      assert.equal(isSelected(value, selection), false);
    }),
    { ...runs, numRuns: runs.numRuns / 10 },
  );
});

test('any value can be shown, in a line', () => {
  fc.assert(
    fc.property(anyEntry, (value) => {
      const line = show(value);
      assert(line.length <= 100, line);
      assert.doesNotMatch(line, /\p{Cc}/u);
      assert(line.isWellFormed());
    }),
    { ...runs, numRuns: runs.numRuns / 10 },
  );
});
