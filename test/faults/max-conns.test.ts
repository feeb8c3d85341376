// Proves that max_conns holds over all workers: never one more at a peer, and a
// place is free again however the request that held it ended.
import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import { beforeEach, test } from 'node:test';
import {
  cut,
  deadAddress,
  type Peer,
  peersOf,
  startPeer,
  startPeers,
} from '../integration/backends.ts';
import {
  type Answer,
  type Client,
  client,
  onTwoWorkers,
  startOpenresty,
  upstreamBlock,
} from '../integration/openresty.ts';
import { until } from '../stack/process.ts';

const open = await startOpenresty({
  servers: upstreamBlock('other'),
  locations: `
    location = /@ { return 204; }
    # where onTwoWorkers asks, so that it takes no place
    location = /v1/status { return 204; }
    location /short {
        proxy_read_timeout 1s;
        proxy_pass http://web;
        error_page 502 504 = @other;
    }
    location /accel { proxy_pass http://web; }
    location /inner { internal; proxy_pass http://other; }
    location @other { proxy_pass http://other; }`,
});
const { admin, nginx } = open;
const url = `127.0.0.1:${nginx.port}`;

beforeEach(() => admin.write('PUT', '/v1/upstreams', { upstreams: {} }));

const put = (peers: object, upstream = 'web') =>
  admin.write('PUT', `/v1/upstreams/${upstream}`, { max_fails: 0, peers });

const limit = (max_conns: number, ...peers: (Peer | string)[]) =>
  peersOf(...peers.map((peer): [Peer | string, object] => [peer, { max_conns }]));

/** A backend that answers only when it is told to, and counts what it holds. */
async function startHolding(host = '127.0.0.1') {
  const held = new Set<ServerResponse>();
  const holding = { held, most: 0, requests: 0 };
  const peer = await startPeer((_request: IncomingMessage, response: ServerResponse) => {
    held.add(response);
    holding.requests += 1;
    holding.most = Math.max(holding.most, held.size);
    response.on('close', () => held.delete(response));
  }, host);
  const answer = () => {
    for (const response of held) response.end('held');
  };
  return Object.assign(holding, { peer, address: peer.address, answer });
}

/** A GET on a connection of its own, by either worker. */
const get = (path = '/', by?: Client): Promise<Answer> => (by ?? client(url)).send('GET', path);

/** n clients that wait for an answer, over both workers, and can go away. */
function wait(n: number, path = '/'): Socket[] {
  return Array.from({ length: n }, () => {
    const socket = connect(nginx.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`);
    return socket;
  });
}

const isFull = ({ status }: Answer) => status === 502 || status === 503;

/** Asserts that requests of either worker are turned away. */
async function assertFull(): Promise<void> {
  for (const worker of await onTwoWorkers(url)) assert.ok(isFull(await worker.send('GET', '/')));
}

/** Asserts that exactly n more requests find a place at the backend, and ends them. */
async function assertFree(holding: Awaited<ReturnType<typeof startHolding>>, n: number) {
  const before = holding.held.size;
  const sockets: Socket[] = [];
  for (let i = 1; i <= n; i += 1) {
    // A worker that found the peer full asks again 50 ms later.
    const pending = until(`place ${i} of ${n}`, async () => {
      const [socket] = wait(1) as [Socket];
      const isIn = await Promise.race([
        new Promise<boolean>((resolve) => socket.once('data', () => resolve(false))),
        until('one more', () => holding.held.size === before + i, 10).catch(() => false),
      ]);
      return isIn && socket;
    });
    sockets.push(await pending);
  }
  await assertFull();
  for (const socket of sockets) socket.destroy();
  await until('they are gone', () => holding.held.size === before);
}

test('max_conns of the upstream is that of its peers, as soon as it is there', async () => {
  const [one, other] = [await startHolding(), await startHolding()];
  await admin.write('PUT', '/v1/upstreams/web', {
    max_fails: 0,
    peers: peersOf(one.peer, [other.peer, { max_conns: 1 }]),
  });
  // both workers have built it without a limit
  for (const worker of await onTwoWorkers(url)) {
    const pending = worker.send('GET', '/');
    await until('it is held', () => one.held.size + other.held.size > 0);
    one.answer();
    other.answer();
    await pending;
  }
  await admin.write('PATCH', '/v1/upstreams/web', { max_conns: 2 });
  const sockets = wait(8);
  await until('they are full', () => one.held.size + other.held.size === 3);
  await assertFull();
  assert.deepEqual([one.most, other.most], [2, 1]);
  for (const socket of sockets) socket.destroy();
});

test('never more than max_conns at once, over two workers; the rest is turned away', async () => {
  const backends = await Promise.all([1, 2, 3].map(() => startHolding()));
  await put(limit(4, ...backends.map(({ peer }) => peer)));
  const clients = Array.from({ length: 60 }, () => client(url));
  const pending = clients.map((one) => get('/', one));
  await until('they are full', () => backends.every(({ held }) => held.size === 4));
  // At once: the others have their answer although nobody has left.
  let refused = 0;
  for (const one of pending) void one.then((answer) => (refused += Number(isFull(answer))));
  await until('the others are turned away', () => refused === 60 - 12);
  await assertFull();
  for (const backend of backends) backend.answer();
  const statuses = (await Promise.all(pending)).map(({ status }) => status);
  assert.equal(statuses.filter((status) => status === 200).length, 12);
  for (const { most } of backends) assert.equal(most, 4);
});

test('a rush of short requests never exceeds the limit, for any balance', async () => {
  for (const balance of ['round_robin', 'least_conn', 'random', 'ewma', 'hash']) {
    const backends = await Promise.all(
      [1, 2].map(async () => {
        const counts = { now: 0, most: 0 };
        const peer = await startPeer((_request, response) => {
          counts.now += 1;
          counts.most = Math.max(counts.most, counts.now);
          setTimeout(() => {
            counts.now -= 1;
            response.end('ok');
          }, 3);
        });
        return { peer, counts };
      }),
    );
    const backup = await startPeer();
    await admin.write('PUT', '/v1/upstreams/web', {
      balance,
      hash_key: '$request_id',
      peers: {
        ...limit(3, ...backends.map(({ peer }) => peer)),
        ...peersOf([backup, { backup: true }]),
      },
    });
    const clients = Array.from({ length: 24 }, () => client(url));
    await Promise.all(
      clients.map(async (one) => {
        for (let i = 0; i < 15; i += 1) assert.equal((await get('/', one)).status, 200, balance);
      }),
    );
    for (const { counts } of backends) assert.ok(counts.most <= 3, `${balance}: ${counts.most}`);
    assert.ok(backup.requests.length > 0, balance);
  }
});

test('what is too much goes to other peers, then to backups', async () => {
  const [small, backup] = [await startHolding(), await startHolding()];
  const [other] = (await startPeers(1)) as [Peer];
  await put({ ...limit(2, small.peer), ...peersOf(other, [backup.peer, { backup: true }]) });
  const sockets = wait(12);
  await until('it is full', () => small.held.size === 2);
  for (let i = 0; i < 10; i += 1) assert.equal((await get()).body, 'ok');
  assert.equal(backup.requests, 0);
  for (const socket of sockets) socket.destroy();

  await put({ ...limit(2, small.peer), ...peersOf([backup.peer, { backup: true }]) });
  await until('it is empty', () => small.held.size === 0);
  const more = wait(5);
  await until('both are used', () => small.held.size === 2 && backup.held.size === 3);
  assert.equal(small.most, 2);
  for (const socket of more) socket.destroy();
});

test('a client that goes away frees its place', async () => {
  const holding = await startHolding();
  await put(limit(2, holding.peer));
  for (let i = 0; i < 3; i += 1) {
    const sockets = wait(2);
    await until('it is full', () => holding.held.size === 2);
    await assertFull();
    sockets[0]?.destroy();
    await until('one has left', () => holding.held.size === 1);
    await assertFree(holding, 1);
    sockets[1]?.destroy();
    await until('it is empty', () => holding.held.size === 0);
  }
  assert.equal(holding.most, 2);
});

test('an internal redirect frees the place of the first try', async () => {
  const [holding, second] = [await startHolding(), await startHolding()];
  await put(limit(1, holding.peer));
  await put(peersOf(second.peer), 'other');
  // after a time-out, to another upstream, where the request stays
  const [late] = wait(1, '/short') as [Socket];
  await until('it is redirected', () => second.held.size === 1);
  await assertFree(holding, 1);
  late.destroy();

  const accel = await startPeer((_request, response) => {
    response.writeHead(200, { 'x-accel-redirect': '/inner' }).end();
  });
  await put(limit(1, accel));
  const sockets: Socket[] = [];
  for (let i = 1; i <= 6; i += 1) {
    await until(`redirect ${i}`, async () => {
      const [socket] = wait(1, '/accel') as [Socket];
      sockets.push(socket);
      const refused = new Promise<boolean>((resolve) => socket.once('data', () => resolve(true)));
      const isIn = until('it is there', () => second.held.size === i, 10).then(() => false);
      return !(await Promise.race([refused, isIn]));
    });
  }
  assert.ok(accel.requests.length >= 6);
  for (const socket of sockets) socket.destroy();
});

test('a retry frees the place of the peer that failed', async () => {
  const [cutting, dead] = [await startPeer(cut), await deadAddress()];
  const holding = await startHolding();
  await put({ ...limit(1, cutting, dead), ...peersOf([holding.peer, { backup: true }]) });
  const sockets = wait(1);
  await until('it is at the backup', () => holding.held.size === 1);
  // while that one still waits, others find a place at the first one
  const before = cutting.requests.length;
  await until('the place is free', async () => {
    sockets.push(...wait(1));
    return cutting.requests.length > before + 3;
  });
  for (const socket of sockets) socket.destroy();
});

test('the places of a worker that was killed are free again, and no others', async () => {
  const holding = await startHolding();
  await put(limit(3, holding.peer));
  const [one, two] = await onTwoWorkers(url);
  const pids = await Promise.all(
    [one, two].map(async (by) => Number((await get('/@', by)).headers['x-worker'])),
  );
  const more = await until('another connection to the first worker', async () => {
    const by = client(url);
    return Number((await get('/@', by)).headers['x-worker']) === pids[0] && by;
  });
  const lost = [one, more].map((by) => get('/', by).catch(() => undefined));
  const kept = get('/', two);
  await until('it is full', () => holding.held.size === 3);
  await assertFull();
  process.kill(pids[0] ?? 0, 'SIGKILL');
  await Promise.all(lost);
  await until('the backend has lost them', () => holding.held.size === 1);
  await assertFree(holding, 2);
  assert.equal(holding.most, 3);
  holding.answer();
  assert.equal((await kept).body, 'held');
  await assertFree(holding, 3);
  assert.equal(holding.most, 3);
});

test('a change of max_conns takes effect at once', async () => {
  const holding = await startHolding();
  await put(limit(1, holding.peer));
  const sockets = wait(1);
  await until('it is full', () => holding.held.size === 1);
  await assertFull();
  await put(limit(3, holding.peer));
  await assertFree(holding, 2);
  // fewer than are there now
  sockets.push(...wait(1));
  await until('one more', () => holding.held.size === 2);
  await put(limit(1, holding.peer));
  await assertFull();
  sockets[0]?.destroy();
  await until('one has left', () => holding.held.size === 1);
  await assertFull();
  sockets[1]?.destroy();
  await until('it is empty', () => holding.held.size === 0);
  await assertFree(holding, 1);
  // no limit any more
  sockets.push(...wait(1));
  await until('it is full', () => holding.held.size === 1);
  await put(peersOf(holding.peer));
  sockets.push(...wait(5));
  await until('more are in', () => holding.held.size === 6);
  for (const socket of sockets) socket.destroy();
  await until('it is empty', () => holding.held.size === 0);
  await put(limit(2, holding.peer));
  await assertFree(holding, 2);
});
