// Proves that connections to peers are kept and used again, whatever is pushed
// meanwhile, by counting them at the backend.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { after, test } from 'node:test';
import { close, listen } from '../stack/server.ts';
import { peersOf, startPeer } from './backends.ts';
import { client, startOpenresty } from './openresty.ts';

const open = await startOpenresty({
  workers: 1,
  locations: 'location /other { proxy_pass http://web; }',
});
const { admin, web } = open;
const path = '/v1/upstreams/web';

async function startCounting() {
  const counting = { address: '', connections: 0, versions: new Set<string>() };
  const server = createServer((request, response) => {
    counting.versions.add(request.httpVersion);
    request.resume().on('end', () => response.end('ok'));
  });
  server.on('connection', () => {
    counting.connections += 1;
  });
  counting.address = await listen(server);
  after(() => close(server));
  return counting;
}

test('requests in a row share one connection for each peer', async () => {
  const peers = await Promise.all([startCounting(), startCounting()]);
  const table = Object.fromEntries(peers.map(({ address }) => [address, {}]));
  for (const balance of ['round_robin', 'random']) {
    await admin.write('PUT', path, { balance, peers: table });
    for (let i = 0; i < 200; i += 1) {
      assert.equal((await web.send(i % 3 ? 'GET' : 'POST', '/')).status, 200);
    }
    for (const { connections, versions } of peers) {
      assert.deepEqual([connections, ...versions], [1, '1.1']);
    }
  }
});

test('locations share the connections of their upstream', async () => {
  const peer = await startCounting();
  await admin.write('PUT', path, { peers: { [peer.address]: {} } });
  for (const location of ['/', '/other', '/', '/other']) {
    assert.equal((await web.send('GET', location)).status, 200);
  }
  assert.equal(peer.connections, 1);
});

test('there are no more connections than requests at once', async () => {
  const peer = await startCounting();
  await admin.write('PUT', path, { peers: { [peer.address]: {} } });
  const clients = Array.from({ length: 8 }, () => client(`127.0.0.1:${open.nginx.port}`));
  await Promise.all(
    clients.map(async (each) => {
      for (let i = 0; i < 50; i += 1) assert.equal((await each.send('GET', '/')).status, 200);
    }),
  );
  assert.ok(peer.connections <= 8, `${peer.connections}`);
});

test('a push leaves the connections alone, even of a peer that goes and comes', async () => {
  const peer = await startCounting();
  const other = await startPeer();
  await admin.write('PUT', path, { peers: { [peer.address]: {} } });
  for (const peers of [
    { [peer.address]: { weight: 9 } },
    { [peer.address]: { zone: 'a', id: 'x' } },
    peersOf(other),
    { [peer.address]: null },
    { [peer.address]: { backup: true } },
    { [other.address]: null },
  ]) {
    await admin.write('PATCH', path, { balance: 'least_conn', peers });
    for (let i = 0; i < 20; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
    assert.equal(peer.connections, 1);
  }
});
