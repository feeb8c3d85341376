// Proves what becomes of a request whose peer fails: another one is tried,
// never the same twice, and the client sees nothing of it while a peer is left.
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { test } from 'node:test';
import { until } from '../stack/process.ts';
import {
  cut,
  cutSecond,
  deadAddress,
  hang,
  peersOf,
  startPeer,
  startPeers,
  startWaiting,
} from './backends.ts';
import {
  client,
  deadPeers,
  peerStatus,
  startOpenresty,
  tries,
  upstreamBlock,
} from './openresty.ts';

const open = await startOpenresty({
  workers: 1,
  locations: `
    location /bare { proxy_pass http://web; }
    location /ghost {
        access_by_lua_block { require("reloadless").access("ghost") }
        proxy_pass http://web;
    }
    location /bare-ghost { proxy_pass http://ghost; }
    location /short { proxy_read_timeout 1s; proxy_pass http://web; }
    location /missing { proxy_next_upstream error http_403 http_404; proxy_pass http://web; }
    location /status { proxy_next_upstream error timeout http_503; proxy_pass http://web; }
    location /two { proxy_next_upstream_tries 2; proxy_pass http://web; }`,
  servers: upstreamBlock('ghost'),
});
const { admin, web } = open;
const path = '/v1/upstreams/web';

const put = (...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', path, { max_fails: 0, peers: peersOf(...peers) });

test('dead peers are passed over, each once, and no client sees them', async () => {
  const good = await startPeers(2);
  const dead = await Promise.all([1, 2, 3].map(deadAddress));
  await put(...good, ...dead);
  let retries = 0;
  for (let i = 0; i < 60; i += 1) {
    const answer = await web.send('GET', '/');
    assert.equal(answer.status, 200);
    const tried = tries(answer);
    assert.equal(new Set(tried).size, tried.length, `${tried}`);
    assert.ok(good.some(({ address }) => address === tried.at(-1)));
    retries += tried.length - 1;
  }
  assert.ok(retries > 0);
});

test('a peer that dies is left at once, and has its share when it is back', async () => {
  const [a, b] = [await startPeer(), await startPeer()];
  await put(a, b);
  for (let i = 0; i < 4; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
  await a.stop();
  for (let i = 0; i < 4; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
  const again = await startPeer(undefined, '127.0.0.1', Number(a.address.split(':')[1]));
  for (let i = 0; i < 4; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
  assert.equal(again.requests.length, 2);
});

test('when all are dead each is tried once, then 502', async () => {
  for (const n of [1, 2, 5, 50]) {
    await admin.write('PUT', path, { max_fails: 0, peers: deadPeers(n) });
    for (let i = 0; i < 3; i += 1) {
      const answer = await web.send('GET', '/');
      assert.equal(answer.status, 502);
      assert.deepEqual(tries(answer).sort(), Object.keys(deadPeers(n)).sort());
    }
  }
  assert.equal(tries(await web.send('GET', '/two')).length, 2);
});

test('backups are tried after all primaries, within one request', async () => {
  const backup = await startPeer();
  const dead = [await deadAddress(), await deadAddress()];
  await put(...dead, [backup, { backup: true }]);
  for (let i = 0; i < 4; i += 1) {
    const answer = await web.send('GET', '/');
    assert.equal(answer.status, 200);
    const tried = tries(answer);
    assert.equal(tried.pop(), backup.address);
    assert.deepEqual(tried.sort(), [...dead].sort());
  }
});

test('a timeout is a failure too, and a status when nginx is told so', async () => {
  const good = await startPeer();
  const [slow, busy] = [
    await startPeer(hang),
    await startPeer((_, response) => busyAnswer(response)),
  ];
  await put(good, slow);
  for (let i = 0; i < 2; i += 1) assert.equal((await web.send('GET', '/short')).status, 200);
  assert.ok(slow.requests.length > 0);
  await put(slow);
  assert.equal((await web.send('GET', '/short')).status, 504);

  await put(good, busy);
  for (let i = 0; i < 4; i += 1) assert.equal((await web.send('GET', '/status')).status, 200);
  const { length } = busy.requests;
  assert.ok(length > 0);
  await put(busy);
  assert.equal((await web.send('GET', '/status')).status, 503);
  assert.equal(busy.requests.length, length + 1);
});

test('an answer of 403 or 404 that goes on to another peer is no failure', async () => {
  const good = await startPeer();
  for (const status of [403, 404]) {
    const other = await startPeer((_, response) => response.writeHead(status).end());
    await admin.write('PUT', path, { fail_timeout: 600, peers: peersOf(good, other) });
    for (let i = 0; i < 10; i += 1) {
      const answer = await web.send('GET', '/missing');
      assert.deepEqual([answer.status, tries(answer).at(-1)], [200, good.address]);
    }
    assert.equal(other.requests.length, 5);
    await until('all are counted', async () => (await peerStatus(admin, other)).requests === 5);
    const { state, failures } = await peerStatus(admin, other);
    assert.deepEqual([state, failures], ['up', 0]);
  }
});

test('a peer that has never answered is ejected by max_fails failures, no more', async () => {
  const good = await startPeer();
  for (const max_fails of [1, 3]) {
    const bad = await startPeer(cut);
    await admin.write('PUT', path, { max_fails, fail_timeout: 600, peers: peersOf(good, bad) });
    for (let i = 0; i < 20; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
    assert.equal(bad.requests.length, max_fails);
  }
});

function busyAnswer(response: ServerResponse): void {
  response.writeHead(503).end('busy');
}

test('a POST is not sent twice, but may go elsewhere when it was not sent', async () => {
  const good = await startPeer();
  const bad = await startPeer(cut);
  await put(good, bad);
  const statuses: number[] = [];
  for (let i = 0; i < 6; i += 1) statuses.push((await web.send('POST', '/', 'x')).status);
  assert.deepEqual(statuses.sort(), [200, 200, 200, 502, 502, 502]);
  assert.equal(bad.requests.length, 3);
  assert.equal(good.requests.length, 3);
  for (let i = 0; i < 4; i += 1) assert.equal((await web.send('GET', '/')).status, 200);

  await put(good, await deadAddress());
  for (let i = 0; i < 6; i += 1) assert.equal((await web.send('POST', '/', 'x')).status, 200);
});

test('a backend restarted on its port serves on, although pools are stale', async () => {
  const first = await startPeer();
  await put(first);
  assert.equal((await web.send('GET', '/')).status, 200);
  const port = Number(first.address.split(':')[1]);
  await first.stop();
  const second = await startPeer(undefined, '127.0.0.1', port);
  assert.equal((await web.send('GET', '/')).status, 200);
  assert.equal(second.requests.length, 1);
});

test('a stale connection of the only peer costs a try, never the request', async () => {
  const peer = await startPeer(cutSecond);
  await put(peer);
  for (let i = 0; i < 10; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
  // each but the first found the connection of the one before
  assert.ok(peer.requests.length > 10);
});

test('stale connections of all peers, and of some beside dead ones', async () => {
  const stale = [await startPeer(cutSecond), await startPeer(cutSecond)];
  await put(...stale);
  for (let i = 0; i < 20; i += 1) assert.equal((await web.send('GET', '/')).status, 200);

  const dead = [await deadAddress(), await deadAddress()];
  await put(...stale, ...dead);
  for (let i = 0; i < 40; i += 1) {
    const answer = await web.send('GET', '/');
    assert.equal(answer.status, 200, `${tries(answer)}`);
    for (const address of dead) {
      assert.ok(tries(answer).filter((tried) => tried === address).length <= 1, `${tries(answer)}`);
    }
  }
});

test('no retry goes to a peer that was taken out meanwhile', async () => {
  const failing = await startWaiting();
  const backup = await startPeer();
  await put(failing, [backup, { backup: true }]);
  const pending = web.send('GET', '/');
  const response = await failing.next();
  await put(failing);
  response.socket?.destroy();
  const answer = await pending;
  assert.equal(answer.status, 502);
  assert.deepEqual([failing.requests.length, backup.requests.length], [1, 0]);
});

test('a retry may go to a peer that came in meanwhile', async () => {
  const failing = await startWaiting();
  const dead = await deadAddress();
  await put(failing, [dead, { backup: true }]);
  const pending = web.send('GET', '/');
  const response = await failing.next();
  const fresh = await startPeer();
  await put(fresh);
  response.socket?.destroy();
  assert.equal((await pending).body, 'ok');
});

test('an upstream that is emptied meanwhile ends its requests with 502', async () => {
  const failing = await startWaiting();
  const dead = await deadAddress();
  for (const write of [
    () => put(),
    () => admin.write('DELETE', path),
    () => admin.write('PUT', '/v1/upstreams', { upstreams: {} }),
  ]) {
    await put(failing, [dead, { backup: true }]);
    const pending = web.send('GET', '/');
    const response = await failing.next();
    await write();
    // another request, so that the worker knows
    assert.equal((await client(`127.0.0.1:${open.nginx.port}`).send('GET', '/')).status, 503);
    response.socket?.destroy();
    assert.equal((await pending).status, 502);
  }
});
