import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isPeerAddress, peerAddress } from '../../agent/state/address.ts';
import { siftDocument } from '../../agent/state/schema.ts';

const good = {
  upstreams: {
    web: {
      owner: 'reloadless',
      balance: 'hash',
      hash_key: '$remote_addr',
      sticky: 'route',
      max_fails: 65_535,
      fail_timeout: 10.125,
      max_tries: 100,
      connect_timeout: 0,
      send_timeout: 86_400,
      read_timeout: 0.001,
      zone: 'a',
      peers: {
        '10.0.0.5:8080': { weight: 0, id: 'web-1', zone: 'a', max_conns: 0, slow_start: 1.5 },
        '[fd00::7]:8080': { backup: true, drain: false },
      },
    },
    'constructor.1': { peers: {} },
  },
};

function withUpstream(fields: object): unknown {
  return { upstreams: { web: { peers: {}, ...fields } } };
}

function withPeer(address: string, peer: unknown): unknown {
  return { upstreams: { web: { peers: { [address]: peer } } } };
}

function message(value: unknown): string {
  try {
    const { leftOut } = siftDocument(value);
    if (leftOut[0] !== undefined) return leftOut[0];
  } catch (error) {
    return (error as Error).message;
  }
  return 'taken';
}

test('a document with every field is taken as it is', () => {
  assert.deepEqual(siftDocument(good), { document: good, leftOut: [] });
});

const refused: [string, unknown, string][] = [
  ['nothing', {}, 'upstreams: missing, expected a mapping of names to values'],
  ['an unknown field at the top', { upstreams: {}, x: 1 }, 'x: not a key that can be set here'],
  ['an unknown field', withUpstream({ x: 1 }), 'upstreams.web.x: not a key that can be set here'],
  [
    'an unknown field of a peer',
    withPeer('10.0.0.5:80', { wieght: 1 }),
    'upstreams.web.peers.10.0.0.5:80.wieght: not a key that can be set here',
  ],
  [
    'a weight out of range',
    withPeer('10.0.0.5:80', { weight: 65_536 }),
    'upstreams.web.peers.10.0.0.5:80.weight: 65536 is not an integer from 0 to 65535',
  ],
  [
    'a weight of another type',
    withPeer('10.0.0.5:80', { weight: '1' }),
    'upstreams.web.peers.10.0.0.5:80.weight: "1" is not an integer from 0 to 65535',
  ],
  [
    'a fraction of a millisecond',
    withUpstream({ fail_timeout: 0.0001 }),
    'upstreams.web.fail_timeout: 0.0001 is not a number of seconds from 0 to 86400 with at most 3 decimals',
  ],
  [
    'no tries',
    withUpstream({ max_tries: 0 }),
    'upstreams.web.max_tries: 0 is not an integer from 1 to 100',
  ],
  [
    'an unknown balance',
    withUpstream({ balance: 'fastest' }),
    'upstreams.web.balance: "fastest" is not one of round_robin, least_conn, ewma, random, hash',
  ],
  [
    'a hash of nothing',
    withUpstream({ balance: 'hash' }),
    'upstreams.web.hash_key: missing, expected what to hash, such as $remote_addr, since balance is hash',
  ],
  [
    'a hash key without a variable',
    withUpstream({ hash_key: 'x' }),
    'upstreams.web.hash_key: "x" is not a string with nginx variables, such as $remote_addr',
  ],
  [
    'a hash key with a brace that is not closed',
    withUpstream({ hash_key: '$uri${host' }),
    'upstreams.web.hash_key: "$uri${host" is not a string with nginx variables, such as $remote_addr',
  ],
  [
    'a cookie name with a space',
    withUpstream({ sticky: 'a b' }),
    'upstreams.web.sticky: "a b" is not a cookie name: 1 to 64 of A-Z a-z 0-9 _ -',
  ],
  [
    'an id with a line break',
    withPeer('10.0.0.5:80', { id: 'a\nb' }),
    'upstreams.web.peers.10.0.0.5:80.id: "a\\nb" is not a string of 1 to 255 bytes without control characters',
  ],
  [
    'an id that is too long in bytes',
    withPeer('10.0.0.5:80', { id: 'é'.repeat(128) }),
    `upstreams.web.peers.10.0.0.5:80.id: "${'é'.repeat(76)}… is not a string of 1 to 255 bytes without control characters`,
  ],
  [
    'null',
    withUpstream({ owner: null }),
    'upstreams.web.owner: null is not a string of 1 to 128 bytes without control characters',
  ],
  [
    'a name with a slash',
    { upstreams: { 'a/b': { peers: {} } } },
    'upstreams.a/b: the key is not a name: 1 to 128 of A-Z a-z 0-9 . _ - but not . or ..',
  ],
  [
    'a name that URLs lose',
    { upstreams: { '..': { peers: {} } } },
    'upstreams...: the key is not a name: 1 to 128 of A-Z a-z 0-9 . _ - but not . or ..',
  ],
  [
    'a host name',
    withPeer('localhost:80', {}),
    'upstreams.web.peers.localhost:80: the key is not an address in canonical form: a.b.c.d:port or [v6]:port',
  ],
];

for (const [what, value, expected] of refused) {
  test(`refused with its reason: ${what}`, () => assert.equal(message(value), expected));
}

test('addresses come in one form', () => {
  assert.equal(peerAddress('10.0.0.5', 80), '10.0.0.5:80');
  assert.equal(peerAddress('FD00:0:0:0:0:0:0:7', 80), '[fd00::7]:80');
  assert.equal(peerAddress('2001:db8:0:0:1:0:0:1', 80), '[2001:db8::1:0:0:1]:80');
  assert.equal(peerAddress('2001:db8:0:1:1:1:1:1', 80), '[2001:db8:0:1:1:1:1:1]:80');
  assert.equal(peerAddress('::ffff:10.1.2.3', 80), '10.1.2.3:80');
  assert.equal(peerAddress('fe80::1%eth0', 80), undefined);
  assert.equal(peerAddress('localhost', 80), undefined);
  assert.equal(peerAddress('10.0.0.5', 0), undefined);
  assert.equal(peerAddress('10.0.0.5', 65_536), undefined);
});

test('only the canonical form of an address is a key', () => {
  for (const key of ['10.0.0.5:80', '[::1]:65535', '[fd00::7]:1']) assert(isPeerAddress(key), key);
  for (const key of [
    '10.0.0.05:80',
    '10.0.0.5:080',
    '10.0.0.5:0',
    '10.0.0.5',
    'fd00::7:80',
    '[FD00::7]:80',
    '[fd00:0::7]:80',
    '[::ffff:10.1.2.3]:80',
    '[10.0.0.5]:80',
  ]) {
    assert(!isPeerAddress(key), key);
  }
});
