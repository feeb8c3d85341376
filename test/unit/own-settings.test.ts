// What an instance says of its own settings, whatever it says.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readSettings } from '../../agent/source/health/settings.ts';
import { siftDocument } from '../../agent/state/document-schema.ts';

const { RELOADLESS_RUNS: numRuns = 2000, RELOADLESS_SEED: seed = 1 } = process.env;
const tags = (...all: string[]) => readSettings({}, all, ['tags']);

test('the tags of upsync, and no other', () => {
  const { peer, faults } = tags('weight=2', 'max_fails=0', 'fail_timeout=1m', 'backup', 'down=1');
  assert.deepEqual(peer, { weight: 2, max_fails: 0, fail_timeout: 60, backup: true, down: true });
  assert.deepEqual(faults, []);
  const none = tags('weight', 'id=x', 'balance=hash', 'backups', 'my-weight=3', 'v=1', 'down ', '');
  assert.deepEqual(none, { peer: {}, balance: undefined, faults: [] });
});

test('a bad value of one place leaves what another says', () => {
  const both = readSettings({ 'reloadless-weight': '-1' }, ['weight=2'], ['meta', 'tags']);
  assert.deepEqual(both.peer, { weight: 2 });
  assert.equal(both.faults.length, 1);
  const plain = readSettings({ zone: 'a', 'reloadless-zone': '' }, [], ['meta']);
  assert.deepEqual(plain.peer, { zone: 'a' });
});

test('whatever an instance says, what is taken may be pushed, and lines are short', () => {
  const field = fc.constantFrom(
    'weight',
    'max-fails',
    'zone',
    'down',
    'id',
    '__proto__',
    'balance',
    '',
  );
  const value = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.constantFrom('1', '1e9', 'x'.repeat(100_000)),
  );
  const meta = fc.array(
    fc.tuple(
      field.map((name) => `reloadless-${name}`),
      value,
    ),
  );
  const tag = fc.oneof(
    fc.tuple(field, value).map((pair) => pair.join('=')),
    value,
  );
  fc.assert(
    fc.property(meta, fc.array(tag), (pairs, all) => {
      const { peer, faults } = readSettings(Object.fromEntries(pairs), all, ['meta', 'tags']);
      const document = { upstreams: { web: { peers: { '10.0.0.5:80': peer } } } };
      assert.deepEqual(siftDocument(document), { document, leftOut: [] });
      for (const line of faults) {
        assert(line.length < 1000, `a line of ${line.length}`);
        assert.doesNotMatch(line, /\p{Cc}/u);
      }
    }),
    { numRuns: Number(numRuns), seed: Number(seed) },
  );
});
