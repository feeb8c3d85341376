// Proves that one upstream block of nginx.conf serves every service: by host, by
// path and by push, each with its own way to balance, and 503 where there is none.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Peer, peersOf, startPeer, startPeers } from './backends.ts';
import { type Answer, deadPeers, noPeer, startOpenresty, tries } from './openresty.ts';

const open = await startOpenresty({
  servers: `
    map $host $by_host {
        api.example.com  api;
        ~^(?<name>[a-z]+)\\.services\\.test$  $name;
    }
    map $uri $reloadless_upstream {
        ~^/host/                   $by_host;
        ~^/path/(?<service>[^/]+)  $service;
    }
    upstream services {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
        keepalive 64;
    }`,
  locations: `
    location ~ ^/(host|path)/ {
        access_by_lua_block { require("reloadless").access() }
        proxy_pass http://services;
    }
    location /bare { proxy_pass http://services; }`,
});
const { admin, web, nginx } = open;
const luaError = /lua entry thread aborted|failed to run/;

const put = (name: string, settings: object, ...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', `/v1/upstreams/${name}`, { ...settings, peers: peersOf(...peers) });

const toHost = (host: string) => web.send('GET', '/host/', undefined, { host });
const peerOf = ({ status, headers }: Answer) => {
  assert.equal(status, 200);
  return String(headers['x-upstream']);
};

/** The peers of n requests in a row for one service. */
async function reached(n: number, name: string, query = (_i: number) => ''): Promise<string[]> {
  const peers: string[] = [];
  for (let i = 0; i < n; i += 1) {
    peers.push(peerOf(await web.send('GET', `/path/${name}/${query(i)}`)));
  }
  return peers;
}

test('services are chosen by host and by path', async () => {
  const [api, web1, web2] = (await startPeers(3)) as [Peer, Peer, Peer];
  await put('api', {}, api);
  await put('web', { balance: 'least_conn' }, web1, web2);
  for (let i = 0; i < 4; i += 1) {
    assert.equal(peerOf(await toHost('api.example.com')), api.address);
    assert.equal(peerOf(await toHost('api.services.test')), api.address);
    assert.notEqual(peerOf(await toHost('web.services.test')), api.address);
    assert.deepEqual(await reached(1, 'api'), [api.address]);
  }
  assert.deepEqual(new Set(await reached(8, 'web')), new Set([web1.address, web2.address]));
});

test('a name that nobody knows, or none, is 503 at once', async () => {
  const hosts = ['nobody.services.test', 'example.org', 'x'.repeat(300)];
  for (const host of hosts) assert.equal((await toHost(host)).status, 503);
  const paths = ['nobody', '%20', '%0a', 'x'.repeat(3000), '..%2f..', '__index', 'a%00b', '%ff'];
  for (const name of paths) {
    const { status } = await web.send('GET', `/path/${name}/`);
    assert.ok(status === 503 || (name.includes('%') && [400, 404].includes(status)), name);
  }
  // without access nginx finds no peer
  assert.equal((await web.send('GET', '/bare')).status, noPeer);
});

test('where nothing sets the variable it is 503 too', async () => {
  const bare = await startOpenresty({
    servers: `
    upstream services {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
    }`,
    locations: `
    location /unset {
        access_by_lua_block { require("reloadless").access() }
        proxy_pass http://services;
    }
    location /bare { proxy_pass http://services; }`,
  });
  assert.equal((await bare.web.send('GET', '/unset')).status, 503);
  assert.equal((await bare.web.send('GET', '/bare')).status, noPeer);
  assert.doesNotMatch(bare.nginx.errorLog, luaError);
});

test('an upstream without peers is 503, and so is one that takes nothing new', async () => {
  const [peer] = (await startPeers(1)) as [Peer];
  for (const peers of [{}, peersOf([peer, { drain: true }]), peersOf([peer, { weight: 0 }])]) {
    await admin.write('PUT', '/v1/upstreams/empty', { peers });
    assert.equal((await web.send('GET', '/path/empty/')).status, 503);
  }
  assert.deepEqual(peer.requests, []);
});

test('a service serves from its push on, and not after', async () => {
  const [peer, ...others] = (await startPeers(3)) as [Peer, Peer, Peer];
  for (let i = 0; i < 20; i += 1) {
    assert.equal((await toHost('fresh.services.test')).status, 503);
    await put('fresh', {}, others[i % 2] ?? peer);
    assert.equal(peerOf(await toHost('fresh.services.test')), others[i % 2]?.address);
    await admin.write('DELETE', '/v1/upstreams/fresh');
  }
  assert.equal((await toHost('fresh.services.test')).status, 503);
});

test('a thousand services, one push, one block', async () => {
  const [a, b] = (await startPeers(2)) as [Peer, Peer];
  const upstreams: Record<string, object> = {};
  for (let i = 0; i < 1000; i += 1) upstreams[`s${i}`] = { peers: peersOf(i % 2 ? a : b) };
  await admin.write('PATCH', '/v1/upstreams', { upstreams });
  for (let i = 0; i < 1000; i += 37) {
    assert.deepEqual(await reached(1, `s${i}`), [i % 2 ? a.address : b.address]);
  }
});

test('a retry stays within its service', async () => {
  const [peer] = (await startPeers(1)) as [Peer];
  await admin.write('PUT', '/v1/upstreams/dying', { max_fails: 0, peers: deadPeers(3) });
  await put('alive', {}, peer);
  const answer = await web.send('GET', '/path/dying/');
  assert.equal(answer.status, 502);
  assert.equal(tries(answer).length, 3);
  assert.deepEqual(await reached(1, 'alive'), [peer.address]);
});

test('a hash of several variables keeps each key on its peer', async () => {
  const peers = await startPeers(4);
  // biome-ignore lint/suspicious/noTemplateCurlyInString: nginx's variables
  const hash_key = '$arg_user/${host}$arg_missing';
  await put('hashed', { balance: 'hash', hash_key }, ...peers);
  const user = (i: number) => `?user=${i}&noise=${Math.random()}`;
  const first = await reached(60, 'hashed', user);
  assert.equal(new Set(first).size, 4);
  assert.deepEqual(await reached(60, 'hashed', user), first);

  // one peer less moves its own keys only, and back
  const [gone] = peers as [Peer];
  await admin.write('PATCH', '/v1/upstreams/hashed', { peers: { [gone.address]: null } });
  const second = await reached(60, 'hashed', user);
  for (const [i, peer] of first.entries()) {
    if (peer === gone.address) assert.notEqual(second[i], peer);
    else assert.equal(second[i], peer);
  }
  await admin.write('PATCH', '/v1/upstreams/hashed', { peers: { [gone.address]: {} } });
  assert.deepEqual(await reached(60, 'hashed', user), first);

  // the other variable is part of the key
  const other = new Set<string>();
  for (let i = 0; i < 60; i += 1) {
    const headers = { host: `h${i}.test` };
    other.add(peerOf(await web.send('GET', '/path/hashed/?user=1', undefined, headers)));
  }
  assert.equal(other.size, 4);

  await admin.write('PATCH', '/v1/upstreams/hashed', { hash_key: '$arg_user' });
  assert.equal(new Set(await reached(20, 'hashed', () => `?user=7&n=${Math.random()}`)).size, 1);
});

test('requests whose key is empty are spread, as nginx does', async () => {
  const peers = await startPeers(4);
  await put('hashed', { balance: 'hash', hash_key: '$arg_user$arg_missing' }, ...peers);
  assert.equal(new Set(await reached(1000, 'hashed')).size, 4);
  for (const { requests } of peers) {
    assert.ok(requests.length > 100 && requests.length < 400, `${requests.length}`);
  }
});

test('peers of the preferred zone first, by push', async () => {
  const [a1, a2, b1, b2] = (await startPeers(4)) as [Peer, Peer, Peer, Peer];
  const path = '/v1/upstreams/zoned';
  const all = [a1, a2, b1, b2].map(({ address }) => address).sort();
  const east = [a1, a2].map(({ address }) => address).sort();
  const west = [b1, b2].map(({ address }) => address).sort();
  const seen = async () => [...new Set(await reached(16, 'zoned'))].sort();
  const zones = [a1, a2].map((peer) => [peer, { zone: 'east' }] as [Peer, object]);
  await put('zoned', {}, ...zones, [b1, { zone: 'west' }], b2);
  assert.deepEqual(await seen(), all);
  await admin.write('PATCH', path, { zone: 'east' });
  assert.deepEqual(await seen(), east);
  await admin.write('PATCH', path, { zone: 'west', peers: { [b2.address]: { zone: 'west' } } });
  assert.deepEqual(await seen(), west);
  await admin.write('PATCH', path, { zone: 'nowhere' });
  assert.deepEqual(await seen(), all);

  // the others help when the zone has no peer left, or too few that are well
  await admin.write('PATCH', path, { zone: 'east', peers: { [a1.address]: { zone: 'west' } } });
  assert.deepEqual(await seen(), [a2.address]);
  await admin.write('PATCH', path, { peers: { [a2.address]: { drain: true } } });
  assert.deepEqual(await seen(), [...west, a1.address].sort());
});

test('a zone whose peers die is left for the others, within the request', async () => {
  const far = await startPeer();
  const peers = { ...deadPeers(2, () => ({ zone: 'east' })), ...peersOf([far, { zone: 'west' }]) };
  await admin.write('PUT', '/v1/upstreams/dark', { zone: 'east', fail_timeout: 600, peers });
  for (let i = 0; i < 6; i += 1) {
    assert.equal(
      peerOf(await web.send('GET', '/path/dark/'))
        .split(', ')
        .at(-1),
      far.address,
    );
  }
  assert.doesNotMatch(nginx.errorLog, luaError);
});
