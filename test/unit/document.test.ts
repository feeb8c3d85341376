import assert from 'node:assert/strict';
import { test } from 'node:test';
import { peerAddress } from '../../agent/state/address.ts';
import { siftDocument } from '../../agent/state/document-schema.ts';

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

const refused: [string, unknown, string][] = [
  ['nothing', {}, 'upstreams: missing, expected a mapping of names to values'],
  ['an unknown field at the top', { upstreams: {}, x: 1 }, 'x: not a key that can be set here'],
  ['an unknown field', withUpstream({ x: 1 }), 'upstreams.web.x: not a key that can be set here'],
  [
    'a weight out of range',
    withPeer('10.0.0.5:80', { weight: 65_536 }),
    'upstreams.web.peers.10.0.0.5:80.weight: 65536 is not an integer from 0 to 65535',
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
    'an id with a line break',
    withPeer('10.0.0.5:80', { id: 'a\nb' }),
    'upstreams.web.peers.10.0.0.5:80.id: "a\\nb" is not a string of 1 to 255 bytes without control characters',
  ],
  [
    'an id that is too long in bytes',
    withPeer('10.0.0.5:80', { id: 'é'.repeat(128) }),
    `upstreams.web.peers.10.0.0.5:80.id: "${'é'.repeat(76)}... is not a string of 1 to 255 bytes without control characters`,
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
