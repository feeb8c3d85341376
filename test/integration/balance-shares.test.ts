// Proves who gets the requests: by weight, in turn, backups last, on every
// worker from the very next request on.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Peer, peersOf, startPeer, startPeers, startWaiting } from './backends.ts';
import { type Client, onTwoWorkers, peerStatus, startOpenresty } from './openresty.ts';

const open = await startOpenresty({
  servers: `
    upstream any {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
        keepalive 32;
    }`,
  locations: `
    location ~ ^/service/(?<service>[^/]*) {
        set $reloadless_upstream $service;
        access_by_lua_block { require("reloadless").access() }
        proxy_pass http://any;
    }`,
});
const { admin, web } = open;
const workers = await onTwoWorkers(`127.0.0.1:${open.nginx.port}`);
const path = '/v1/upstreams/web';

const put = (...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', path, { max_fails: 0, peers: peersOf(...peers) });

/** The peers of n requests in a row, each of which must be served at its first try. */
async function sequence(n: number, client: Client = web, at = '/'): Promise<string[]> {
  const peers: string[] = [];
  for (let i = 0; i < n; i += 1) {
    const { status, headers } = await client.send('GET', at);
    assert.equal(status, 200);
    peers.push(String(headers['x-upstream']));
  }
  return peers;
}

function counts(peers: string[]): Record<string, number> {
  const result: Record<string, number> = {};
  for (const peer of peers) result[peer] = (result[peer] ?? 0) + 1;
  return result;
}

test('shares follow the weights in every window', async () => {
  const [a, b, c] = (await startPeers(3)) as [Peer, Peer, Peer];
  await put([a, { weight: 1 }], [b, { weight: 2 }], [c, { weight: 5 }]);
  const peers = await sequence(32);
  for (let start = 0; start + 8 <= peers.length; start += 1) {
    assert.deepEqual(
      Object.entries(counts(peers.slice(start, start + 8))).sort(),
      Object.entries({ [a.address]: 1, [b.address]: 2, [c.address]: 5 }).sort(),
    );
  }
});

test('peers of equal weight take turns, and keep them when others come and go', async () => {
  const [a, b, c, d] = (await startPeers(4)) as [Peer, Peer, Peer, Peer];
  await put(a, b, c);
  const turn = await sequence(3);
  assert.equal(new Set(turn).size, 3);
  assert.deepEqual(await sequence(3), turn);

  await admin.write('PATCH', path, { peers: { [d.address]: {} } });
  const four = await sequence(8);
  assert.deepEqual(four.slice(0, 4), four.slice(4));
  assert.deepEqual(
    four.filter((peer) => peer !== d.address),
    [...turn, ...turn],
  );

  await admin.write('PATCH', path, { peers: { [d.address]: null, [b.address]: { weight: 3 } } });
  const weighted = await sequence(10);
  const rest = turn.filter((peer) => peer !== b.address);
  assert.deepEqual(
    weighted.filter((peer) => peer !== b.address),
    [...rest, ...rest],
  );

  await admin.write('PATCH', path, { owner: 'someone', max_fails: 3 });
  assert.deepEqual(await sequence(10), weighted);
});

test('weight 0, drain and down take nothing new', async () => {
  const [a, b, c] = (await startPeers(3)) as [Peer, Peer, Peer];
  await put(a, [b, { weight: 0 }], [c, { drain: true }]);
  assert.deepEqual(counts(await sequence(9)), { [a.address]: 9 });
  await put(a, [b, { down: true }], [c, { down: true, backup: true }]);
  assert.deepEqual(counts(await sequence(9)), { [a.address]: 9 });
  assert.equal((await peerStatus(admin, b)).state, 'down');
  await put([a, { weight: 0 }], [b, { weight: 0, backup: true }], [c, { drain: true }]);
  assert.equal((await web.send('GET', '/')).status, 503);
  await put([a, { drain: false }], [b, { weight: 1 }], c);
  assert.equal(Object.keys(counts(await sequence(3))).length, 3);
});

test('backups serve only while no primary is there', async () => {
  const [a, b, c] = (await startPeers(3)) as [Peer, Peer, Peer];
  await put(a, [b, { backup: true }], [c, { backup: true, weight: 3 }]);
  assert.deepEqual(counts(await sequence(8)), { [a.address]: 8 });
  for (const change of [{ weight: 0 }, { weight: 1, drain: true }, null]) {
    await admin.write('PATCH', path, { peers: { [a.address]: change } });
    assert.deepEqual(
      Object.entries(counts(await sequence(8))).sort(),
      Object.entries({ [b.address]: 2, [c.address]: 6 }).sort(),
    );
  }
  // a backup becomes a primary, and one again
  await admin.write('PATCH', path, { peers: { [b.address]: { backup: false } } });
  assert.deepEqual(counts(await sequence(8)), { [b.address]: 8 });
  await admin.write('PATCH', path, { peers: { [b.address]: { backup: true } } });
  assert.equal(Object.keys(counts(await sequence(8))).length, 2);
});

test('IPv6 peers', async () => {
  const six = await startPeer(undefined, '::1');
  const [four] = (await startPeers(1)) as [Peer];
  await put(six, four);
  assert.equal(Object.keys(counts(await sequence(4))).length, 2);
  assert.equal(six.requests.length, 2);
});

test('one block serves every service by $reloadless_upstream', async () => {
  const [a, b, c] = (await startPeers(3)) as [Peer, Peer, Peer];
  await admin.write('PUT', '/v1/upstreams/one', { peers: peersOf(a, b) });
  await admin.write('PUT', '/v1/upstreams/two', { peers: peersOf(c) });
  for (let round = 0; round < 3; round += 1) {
    assert.equal(Object.keys(counts(await sequence(2, web, '/service/one'))).length, 2);
    assert.deepEqual(counts(await sequence(2, web, '/service/two')), { [c.address]: 2 });
  }
  for (const name of ['three', '', 'one%20', 'a'.repeat(2000)]) {
    assert.equal((await web.send('GET', `/service/${name}`)).status, 503);
  }
});

test('two workers see each change at the very next request', async () => {
  const peers = await startPeers(2);
  for (let round = 0; round < 100; round += 1) {
    const peer = peers[round % 2] as Peer;
    await put(peer);
    for (const worker of workers) {
      assert.deepEqual(await sequence(1, worker), [peer.address], `round ${round}`);
    }
  }
  assert.equal((await admin.send('DELETE', path)).status, 200);
  for (const worker of workers) assert.equal((await worker.send('GET', '/')).status, 503);
});

test('a request on its way to a removed peer is finished', async () => {
  const slow = await startWaiting();
  await put(slow);
  const pending = web.send('GET', '/');
  const response = await slow.next();
  await put();
  for (const worker of workers) assert.equal((await worker.send('GET', '/')).status, 503);
  response.end('late');
  assert.equal((await pending).body, 'late');
});
