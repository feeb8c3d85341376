// What keys of KV say of peers: the layout of nginx-upsync-module as its
// documentation writes it, today's and older ones, and documents in one key.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { readPairs } from '../../agent/source/kv/reading.ts';
import { siftDocument } from '../../agent/state/document-schema.ts';

const { RELOADLESS_RUNS: numRuns = 2000, RELOADLESS_SEED: seed = 1 } = process.env;
const runs = { numRuns: Number(numRuns), seed: Number(seed) };

/** As Consul sends it: what is empty is null. */
function pair(Key: string, value = '') {
  return { Key, Value: value === '' ? null : Buffer.from(value).toString('base64'), Flags: 0 };
}

/** What one key of the layout says, with the peer at 10.0.0.5:8080. */
function one(value: string) {
  const { peers, faults } = readPairs([pair('upstreams/web/10.0.0.5:8080', value)], true);
  return { peer: peers['10.0.0.5:8080'], faults };
}

/** What a document says. */
function document(value: unknown) {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return readPairs([pair('web', text)], false);
}

const whole = { weight: 2, max_fails: 2, fail_timeout: 10 };

const forms: [what: string, value: string, peer: object][] = [
  ['nothing', '', {}],
  ['numbers', '{"weight":2, "max_fails":2, "fail_timeout":10}', whole],
  [
    'a peer that is down',
    '{"weight":2, "max_fails":2, "fail_timeout":10, "down":1}',
    { ...whole, down: true },
  ],
  [
    'a peer that is back',
    '{"weight":2, "max_fails":2, "fail_timeout":10, "down":0}',
    { ...whole, down: false },
  ],
  ['a backup', '{"backup":1}', { backup: true }],
  ['text with units', '{"weight":"2", "max_fails":"2", "fail_timeout":"10s"}', whole],
  ['text', '{"weight":"2", "down":"1", "backup":"0"}', { weight: 2, down: true, backup: false }],
  ['words', '{"down":true, "backup":"false"}', { down: true, backup: false }],
  ['other letters', '{"Weight":2, "MAX_FAILS":2, "Fail_Timeout":10}', whole],
  ['null', '{"weight":null}', {}],
  ['a line that ends', '{"weight":2}\n', { weight: 2 }],
  [
    'fields that upsync does not have',
    '{"max_conns":100, "slow_start":"30s", "zone":"a", "id":"web-1", "drain":1}',
    { max_conns: 100, slow_start: 30, zone: 'a', id: 'web-1', drain: true },
  ],
];

for (const [what, value, peer] of forms) {
  test(`a value of upsync: ${what}`, () => {
    assert.deepEqual(one(value), { peer, faults: [] });
  });
}

test('a value that cannot be used is named, and the rest is', () => {
  assert.deepEqual(one('{"weight":-1, "max_fails":"many", "fail_timeout":20, "wieght":3}'), {
    peer: { fail_timeout: 20 },
    faults: [
      'upstreams/web/10.0.0.5:8080: weight: -1 is not an integer from 0 to 65535',
      'upstreams/web/10.0.0.5:8080: max_fails: "many" is not an integer from 0 to 65535',
      'upstreams/web/10.0.0.5:8080: wieght: not a key that can be set here',
    ],
  });
  for (const value of ['data{"weight":"2"}', '[1]', '5', '"down"', '{"weight":2']) {
    const { peer, faults } = one(value);
    assert.deepEqual([peer, faults.length], [{}, 1]);
    assert.match(faults[0] ?? '', /^upstreams\/web\/10\.0\.0\.5:8080: .* is not a JSON object$/);
  }
  const { peer, faults } = one(`{"weight":2,"id":"${'x'.repeat(5000)}"}`);
  assert.deepEqual(peer, {});
  assert.deepEqual(faults, ['upstreams/web/10.0.0.5:8080: 5020 bytes are more than 4096']);
});

test('the address is what follows the last slash, in canonical form; folders are none', () => {
  const { written, peers, malformed } = readPairs(
    [
      pair('upstreams/web/'),
      pair('upstreams/web/10.0.0.5:8080'),
      pair('upstreams/web/[FD00:0::7]:8080'),
      pair('upstreams/web/east/'),
      pair('upstreams/web/east/10.0.0.6:8080'),
      pair('upstreams/web/east/10.0.0.5:8080'),
      pair('upstreams/web/web.example:80'),
      pair('upstreams/web/10.0.0.7'),
      pair('upstreams/web/10.0.0.7:0'),
    ],
    true,
  );
  assert.deepEqual(Object.keys(peers), ['10.0.0.5:8080', '[fd00::7]:8080', '10.0.0.6:8080']);
  const form = 'is not an address: a.b.c.d:port or [v6]:port';
  assert.deepEqual(malformed, [
    'upstreams/web/east/10.0.0.5:8080: "10.0.0.5:8080" is there already',
    `upstreams/web/web.example:80: "web.example:80" ${form}`,
    `upstreams/web/10.0.0.7: "10.0.0.7" ${form}`,
    `upstreams/web/10.0.0.7:0: "10.0.0.7:0" ${form}`,
  ]);
  assert.equal(written, 7);
});

test('a document is an object by address, or a list', () => {
  const expected = { '10.0.0.5:80': { weight: 2 }, '10.0.0.6:80': {} };
  const byAddress = { '10.0.0.5:80': { weight: 2 }, '10.0.0.6:80': null };
  const list = [{ address: '10.0.0.5:80', weight: '2' }, '10.0.0.6:80'];
  const ports = [
    { ip: '10.0.0.5', port: '80', weight: 2 },
    { host: '10.0.0.6', port: 80 },
  ];
  for (const peers of [byAddress, list, ports]) {
    for (const value of [peers, { peers }]) {
      assert.deepEqual(document(value), { written: 2, peers: expected, malformed: [], faults: [] });
    }
  }
  assert.deepEqual(Object.keys(document([{ server: 'fd00::7', port: 80 }]).peers), [
    '[fd00::7]:80',
  ]);
  assert.equal(document([]).written, 0);
  assert.equal(document({}).written, 0);
  assert.equal(readPairs([], false).written, 0);
});

test('what is wrong in a document is named by its place', () => {
  const { peers, malformed, faults } = document([
    '10.0.0.5:80',
    7,
    { host: {} },
    { address: '10.0.0.6:80', weight: 'x' },
  ]);
  assert.deepEqual(peers, { '10.0.0.5:80': {}, '10.0.0.6:80': {} });
  const form = 'is not an address: a.b.c.d:port or [v6]:port';
  assert.deepEqual(malformed, [`web: 1: "7" ${form}`, `web: 2: "{}" ${form}`]);
  assert.deepEqual(faults, ['web: 3: weight: "x" is not an integer from 0 to 65535']);
  for (const text of ['', '{', 'server 10.0.0.5:80;', '5', 'null', '{"peers":1}']) {
    const {
      written,
      malformed: [line = ''],
    } = document(text);
    assert.equal(written, 1);
    assert.match(line, /^web: .* is not peers by address, or a list of them, as JSON$/);
  }
});

test('whatever somebody stores: the good ones stay, what is taken may be pushed, lines are short', () => {
  const text = fc.oneof(
    fc.json({ stringUnit: 'binary' }),
    fc.string({ unit: 'binary' }),
    fc.constantFrom(10, 50_000).map((n) => `${'['.repeat(n)}${']'.repeat(n)}`),
    fc.constantFrom(10, 50_000).map((n) => `${'{"a":'.repeat(n)}1${'}'.repeat(n)}`),
    fc.constantFrom(
      '{"__proto__":{"weight":1},"toString":1}',
      '[{"address":{"toString":1},"port":{"valueOf":1}}]',
      '{"peers":{"__proto__":{"weight":1}}}',
      '{"weight":1e999,"id":"\\ud800","zone":"\\u0000"}',
    ),
    fc.constant('x'.repeat(600_000)),
  );
  const key = fc.oneof(
    fc.constantFrom(
      'web/10.0.0.9:80',
      'web/__proto__',
      'web/[fe80::1%eth0]:80',
      'web/\ud800:80',
      '',
      '/',
    ),
    fc.string({ unit: 'binary' }),
  );
  const raw = fc.oneof(
    fc.tuple(key, text).map(([name, value]): unknown => pair(name, value)),
    fc.json().map((value): unknown => JSON.parse(value)),
  );
  const good = [pair('web/10.0.0.5:80', '{"weight":2}'), pair('web/10.0.0.6:80')];
  fc.assert(
    fc.property(raw, fc.boolean(), (other, isPrefix) => {
      const pairs = isPrefix ? [good[0], other, good[1]] : [other];
      const { written, peers, malformed, faults } = readPairs(pairs, isPrefix);
      if (isPrefix) {
        assert.deepEqual(peers['10.0.0.5:80'], { weight: 2 });
        assert.deepEqual(peers['10.0.0.6:80'], {});
      }
      assert.equal(Object.keys(peers).length + malformed.length, written);
      for (const line of [...malformed, ...faults]) {
        assert(line.length < 1000, `a line of ${line.length}`);
        assert.doesNotMatch(line, /\p{Cc}/u);
      }
      const whole = { upstreams: { web: { peers } } };
      assert.deepEqual(siftDocument(whole), { document: whole, leftOut: [] });
    }),
    runs,
  );
});
