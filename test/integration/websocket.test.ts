// Proves WebSocket through the balancer: frames both ways, on a connection that
// outlives its peer in the table and counts as active while it lasts.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { after, test } from 'node:test';
import { type RawData, WebSocket, WebSocketServer } from 'ws';
import { until } from '../stack/process.ts';
import { deadAddress, peersOf } from './backends.ts';
import { noPeer, peerStatus, startOpenresty } from './openresty.ts';

const open = await startOpenresty({
  workers: 1,
  servers: `
    map $http_upgrade $connection_upgrade {
        default  upgrade;
        ''       '';
    }`,
  locations: `
    location /socket {
        proxy_pass http://web;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $connection_upgrade;
        proxy_read_timeout 1h;
        proxy_send_timeout 1h;
    }`,
});
const { admin } = open;
const path = '/v1/upstreams/web';

const put = (...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', path, { peers: peersOf(...peers) });

/** A server that greets with its address, then sends back what it gets. */
async function startEcho(): Promise<{ address: string; server: WebSocketServer }> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  after(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
  });
  const address = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  server.on('connection', (socket) => {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
    socket.send(address);
  });
  return { address, server };
}

/** Connects, and reads the greeting. */
async function connect(): Promise<{ socket: WebSocket; address: string }> {
  const socket = new WebSocket(`ws://127.0.0.1:${open.nginx.port}/socket`);
  after(() => socket.terminate());
  const [greeting] = (await once(socket, 'message')) as [Buffer];
  return { socket, address: greeting.toString() };
}

async function assertEchoes(socket: WebSocket, data: string | Buffer): Promise<void> {
  const answer = once(socket, 'message') as Promise<[RawData, boolean]>;
  socket.send(data);
  const [echo, isBinary] = await answer;
  assert.ok(Buffer.from(data as Buffer).equals(echo as Buffer));
  assert.equal(isBinary, Buffer.isBuffer(data));
}

const activeOn = async (peer: { address: string }) => (await peerStatus(admin, peer)).active;

test('frames go both ways, and the connection is active until it ends', async () => {
  const echo = await startEcho();
  await put(echo.address);
  const { socket, address } = await connect();
  assert.equal(address, echo.address);
  for (let i = 0; i < 20; i += 1) await assertEchoes(socket, `text ${i}`);
  await assertEchoes(socket, Buffer.alloc(1 << 20, 7));
  await until('it is active', async () => (await activeOn(echo)) === 1);
  const closed = once(socket, 'close');
  socket.close(4001, 'enough');
  assert.equal((await closed)[0], 4001);
  await until('it is over', async () => (await activeOn(echo)) === 0);
});

test('a connection outlives its peer in the table', async () => {
  const [a, b] = [await startEcho(), await startEcho()];
  await put(a.address);
  const { socket } = await connect();
  const ended = once(socket, 'close');
  for (const change of [{ drain: true }, { weight: 0, drain: false }, null]) {
    await admin.write('PATCH', path, { peers: { [b.address]: {}, [a.address]: change } });
    // its worker has seen the change
    assert.equal((await connect()).address, b.address);
    await assertEchoes(socket, 'still here');
  }
  await admin.write('DELETE', path);
  assert.equal((await open.web.send('GET', '/')).status, 503);
  await assertEchoes(socket, Buffer.from('still here'));

  // it comes back, and the end of the old connection is not counted against it
  await put(a.address);
  const again = await connect();
  socket.close();
  await ended;
  await until('one is active', async () => (await activeOn(a)) === 1);
  again.socket.close();
  await until('none is active', async () => (await activeOn(a)) === 0);
});

test('connections are spread by those that last', async () => {
  const [a, b] = [await startEcho(), await startEcho()];
  await admin.write('PUT', path, { balance: 'least_conn', peers: peersOf(a.address, b.address) });
  for (let i = 0; i < 10; i += 1) await connect();
  assert.deepEqual([a.server.clients.size, b.server.clients.size], [5, 5]);
  for (const socket of a.server.clients) socket.close();
  await until('they are over', async () => (await activeOn(a)) === 0);
  for (let i = 0; i < 5; i += 1) assert.equal((await connect()).address, a.address);
});

test('a peer that refuses is passed over, and none at all is refused', async () => {
  const echo = await startEcho();
  const dead = [await deadAddress(), await deadAddress()];
  await put([echo.address, { backup: true }], ...dead);
  assert.equal((await connect()).address, echo.address);
  await put();
  const socket = new WebSocket(`ws://127.0.0.1:${open.nginx.port}/socket`);
  const [error] = await once(socket, 'error');
  assert.match(String(error), new RegExp(`${noPeer}`));
});
