// Proves that the number of tries and the time-outs of an upstream come by push,
// hold from the next request on and stay within nginx's own rules for retries.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { after, test } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  cutSecond,
  hang,
  type Peer,
  peersOf,
  startPeer,
  startPeers,
  startWaiting,
} from './backends.ts';
import {
  type Answer,
  client,
  deadPeers,
  startOpenresty,
  tries,
  upstreamBlock,
} from './openresty.ts';

const open = await startOpenresty({
  workers: 1,
  servers: `
    proxy_connect_timeout 50s;
    proxy_send_timeout 50s;
    proxy_read_timeout 50s;
    ${upstreamBlock('other')}`,
  locations: `
    location /other { proxy_pass http://other; }
    location /two { proxy_next_upstream_tries 2; proxy_pass http://web; }
    location /none { proxy_next_upstream off; proxy_pass http://web; }
    location /again { proxy_next_upstream timeout non_idempotent; proxy_pass http://web; }`,
});
const { admin, web } = open;
const url = `127.0.0.1:${open.nginx.port}`;

const put = (settings: object, ...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', '/v1/upstreams/web', { max_fails: 0, ...settings, peers: peersOf(...peers) });
const patch = (settings: object) => admin.write('PATCH', '/v1/upstreams/web', settings);

/** Sends, and asserts that the answer is 504, not before and not long after so many seconds. */
async function assertLate(seconds: number, method = 'GET', body?: unknown): Promise<Answer> {
  const from = performance.now();
  const answer = await web.send(method, '/', body);
  const took = (performance.now() - from) / 1000;
  assert.equal(answer.status, 504);
  // far from the 50 s of nginx.conf, and by nginx's clock of milliseconds
  assert.ok(took > seconds * 0.9 && took < 25, `${took} s`);
  return answer;
}

/** An address whose queue of connections is full: connecting gets no answer at all. */
async function fullAddress(): Promise<string> {
  const worker = new Worker(
    `const server = require('node:net').createServer();
     server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
       require('node:worker_threads').parentPort.postMessage(server.address().port);
       Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
     });`,
    { eval: true },
  );
  after(() => worker.terminate());
  const [port] = await once(worker, 'message');
  // Linux queues one more than asked for.
  for (let i = 0; i < 2; i += 1) {
    const socket = connect(port, '127.0.0.1').on('error', () => {});
    after(() => socket.destroy());
    await once(socket, 'connect');
  }
  return `127.0.0.1:${port}`;
}

/** An address that takes connections and reads nothing. */
async function deafAddress(): Promise<string> {
  const sockets: Socket[] = [];
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    sockets.push(socket.on('error', () => {}));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

test('max_tries bounds the peers that one request is sent to', async () => {
  await admin.write('PUT', '/v1/upstreams/web', { max_fails: 0, peers: deadPeers(5) });
  for (const [max_tries, expected] of [
    [1, 1],
    [2, 2],
    [5, 5],
    [100, 5],
    [3, 3],
    [null, 5],
  ] as const) {
    await patch({ max_tries });
    for (const body of [undefined, 'x']) {
      const answer = await web.send(body === undefined ? 'GET' : 'POST', '/', body);
      assert.equal(answer.status, 502);
      assert.equal(new Set(tries(answer)).size, expected);
      assert.equal(tries(answer).length, expected);
    }
  }
});

test("nginx's own bounds hold as well", async () => {
  await admin.write('PUT', '/v1/upstreams/web', { max_fails: 0, peers: deadPeers(5) });
  for (const [max_tries, two] of [
    [null, 2],
    [4, 2],
    [1, 1],
  ] as const) {
    await patch({ max_tries });
    assert.equal(tries(await web.send('GET', '/two')).length, two);
    assert.equal(tries(await web.send('GET', '/none')).length, 1);
  }
});

test('with one try a connection that had gone stale still costs no request', async () => {
  const peers = [await startPeer(cutSecond), await startPeer(cutSecond)];
  await put({ max_tries: 1 }, ...peers);
  for (let i = 0; i < 20; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
});

test('connect_timeout', async () => {
  const [full, [good]] = [await fullAddress(), (await startPeers(1)) as [Peer]];
  await put({ connect_timeout: 0.1 }, full);
  await assertLate(0.1);
  await patch({ connect_timeout: 0.6 });
  await assertLate(0.6);
  // nothing was sent, so that another peer may have it
  await put({ connect_timeout: 0.1 }, full, [good, { backup: true }]);
  for (const method of ['GET', 'POST']) {
    const answer = await web.send(method, '/');
    assert.deepEqual([answer.status, tries(answer)], [200, [full, good.address]]);
  }
  // each try has as long
  await put({ connect_timeout: 0.2 }, full, await fullAddress());
  assert.equal(tries(await assertLate(0.4)).length, 2);
});

test('send_timeout', async () => {
  const deaf = await deafAddress();
  // more than the kernel takes for a peer that does not read
  const body = Buffer.alloc(32 << 20);
  await put({ send_timeout: 0.1 }, deaf);
  await assertLate(0.1, 'POST', body);
  await patch({ send_timeout: 0.6 });
  await assertLate(0.6, 'POST', body);
});

test('read_timeout', async () => {
  const [slow, [good]] = [await startPeer(hang), (await startPeers(1)) as [Peer]];
  await put({ read_timeout: 0.1 }, slow);
  await assertLate(0.1);
  await patch({ read_timeout: 0.6 });
  await assertLate(0.6);
  await put({ read_timeout: 0.1 }, slow, [good, { backup: true }]);
  const answer = await web.send('GET', '/');
  assert.deepEqual([answer.status, tries(answer)], [200, [slow.address, good.address]]);
});

test('a push takes a time-out away again, and 0 is none', async () => {
  const [slow, hanging] = [await startWaiting(), await startPeer(hang)];
  for (const none of [null, 0]) {
    await put({ connect_timeout: 0.1, send_timeout: 0.1, read_timeout: 0.1 }, slow);
    await assertLate(0.1);
    slow.waiting.length = 0;
    await patch({ connect_timeout: none, send_timeout: none, read_timeout: none });
    const pending = client(url).send('GET', '/');
    const response = await slow.next();
    await put({ read_timeout: 0.4 }, hanging);
    await assertLate(0.4);
    response.end('late');
    assert.equal((await pending).body, 'late');
  }
});

test('other upstreams keep their own', async () => {
  const [slow, hanging] = [await startWaiting(), await startPeer(hang)];
  await admin.write('PUT', '/v1/upstreams/other', { peers: peersOf(slow) });
  await put({ read_timeout: 0.3, max_tries: 1 }, hanging);
  await assertLate(0.3);
  const pending = client(url).send('GET', '/other');
  const response = await slow.next();
  await assertLate(0.3);
  response.end('late');
  assert.equal((await pending).body, 'late');

  await admin.write('PUT', '/v1/upstreams/other', { max_fails: 0, peers: deadPeers(4) });
  assert.equal(tries(await web.send('GET', '/other')).length, 4);
});

test('a POST that was sent stays with its peer, unless nginx.conf says otherwise', async () => {
  const [slow, [good]] = [await startPeer(hang), (await startPeers(1)) as [Peer]];
  await put({ read_timeout: 0.1, max_tries: 2 }, slow, [good, { backup: true }]);
  const answer = await assertLate(0.1, 'POST', 'x');
  assert.deepEqual([tries(answer), good.requests], [[slow.address], []]);
  const again = await web.send('POST', '/again', 'x');
  assert.deepEqual([again.status, tries(again)], [200, [slow.address, good.address]]);
});
