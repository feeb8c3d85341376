// Proves that the counters of /v1/status add up over workers: every request and
// failure once, and nothing active when all is over, however requests end.
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { beforeEach, test } from 'node:test';
import { until } from '../stack/process.ts';
import {
  cut,
  cutSecond,
  deadAddress,
  hang,
  type Peer,
  peersOf,
  startPeer,
  startPeers,
  startWaiting,
} from './backends.ts';
import { type Client, client, onTwoWorkers, startOpenresty, upstreamBlock } from './openresty.ts';

const open = await startOpenresty({
  servers: upstreamBlock('other'),
  locations: `
    location /short { proxy_read_timeout 1s; proxy_pass http://web; }
    location /static {
        proxy_pass http://web;
        error_page 502 504 =200 @static;
        proxy_read_timeout 1s;
    }
    location @static { return 200 "static"; }
    location /fallback {
        proxy_pass http://web;
        proxy_intercept_errors on;
        error_page 404 502 503 = @other;
    }
    location @other { proxy_pass http://other; }
    location = /@ { return 204; }
    location /sub {
        content_by_lua_block {
            local answers = { ngx.location.capture_multi({ { "/" }, { "/" } }) }
            ngx.say(answers[1].status, " ", answers[2].status)
        }
    }`,
});
const { admin, web } = open;
const url = `127.0.0.1:${open.nginx.port}`;
const workers = await onTwoWorkers(url);

beforeEach(() => admin.write('PUT', '/v1/upstreams', { upstreams: {} }));

const put = (...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', '/v1/upstreams/web', { max_fails: 0, peers: peersOf(...peers) });

type Counts = { requests: number; failures: number; active: number };

/** The counters of peers once they are as expected, which takes a second at least. */
async function assertCounts(
  expected: Record<string, Partial<Counts>>,
  upstream = 'web',
): Promise<void> {
  let last: unknown;
  await until('the counters', async () => {
    const status = JSON.parse(await admin.get('/v1/status'));
    last = Object.fromEntries(
      Object.entries(expected).map(([key, counts]) => {
        const peer = status.upstreams[upstream].peers[key];
        return [key, Object.fromEntries(Object.keys(counts).map((name) => [name, peer[name]]))];
      }),
    );
    assert.deepEqual(last, expected);
    return true;
  }).catch((error) => {
    assert.deepEqual(last, expected, String(error));
  });
}

const all = (requests: number, failures: number, active = 0): Counts => ({
  requests,
  failures,
  active,
});

test('requests of both workers add up', async () => {
  const [a, b] = (await startPeers(2)) as [Peer, Peer];
  await put([a, { weight: 3 }], [b, { weight: 1 }]);
  await Promise.all(
    workers.map(async (worker) => {
      for (let i = 0; i < 40; i += 1) assert.equal((await worker.send('GET', '/')).status, 200);
    }),
  );
  await assertCounts({ [a.address]: all(60, 0), [b.address]: all(20, 0) });

  // A change keeps what was counted, as long as the peer stays.
  await admin.write('PATCH', '/v1/upstreams/web', { peers: { [a.address]: { weight: 1 } } });
  for (let i = 0; i < 4; i += 1) await web.send('GET', '/');
  await assertCounts({ [a.address]: all(62, 0), [b.address]: all(22, 0) });
});

test('a try that fails is a failure of its peer alone', async () => {
  const good = await startPeer();
  const [dead, bad] = [await deadAddress(), await startPeer(cut)];
  await put([good, { backup: true }], dead, bad);
  for (let i = 0; i < 6; i += 1) assert.equal((await web.send('GET', '/')).status, 200);
  await assertCounts({
    [good.address]: all(6, 0),
    [dead]: all(6, 6),
    [bad.address]: all(6, 6),
  });
});

test('the last try counts too: refused, cut, too late', async () => {
  const [dead, bad, slow] = [await deadAddress(), await startPeer(cut), await startPeer(hang)];
  await put(dead, bad, slow);
  for (let i = 0; i < 2; i += 1) {
    assert.ok([502, 504].includes((await web.send('GET', '/short')).status));
  }
  await assertCounts({ [dead]: all(2, 2), [bad.address]: all(2, 2), [slow.address]: all(2, 2) });
});

test('what a peer answers itself is no failure, whatever its status', async () => {
  const statuses = [200, 404, 500, 502, 503, 504];
  const peer = await startPeer((request, response) => {
    response.writeHead(Number(request.url?.slice(1))).end();
  });
  await put(peer);
  for (const status of statuses) {
    assert.equal((await web.send('GET', `/${status}`)).status, status);
  }
  await assertCounts({ [peer.address]: all(statuses.length, 0) });
});

test('an error_page that hides the failure does not hide it here', async () => {
  const [dead, slow] = [await deadAddress(), await startPeer(hang)];
  await put(dead);
  assert.equal((await web.send('GET', '/static')).body, 'static');
  await assertCounts({ [dead]: all(1, 1) });
  await put(slow);
  assert.equal((await web.send('GET', '/static')).body, 'static');
  await assertCounts({ [slow.address]: all(1, 1) });
});

test('an internal redirect to another upstream ends the first try', async () => {
  const other = await startPeer();
  const dead = await deadAddress();
  const answering = await startPeer((request, response) => {
    response.writeHead(Number(request.url?.split('/')[2])).end();
  });
  await admin.write('PUT', '/v1/upstreams/other', { max_fails: 0, peers: peersOf(other) });
  await put(dead);
  for (let i = 0; i < 3; i += 1) assert.equal((await web.send('GET', '/fallback')).body, 'ok');
  await assertCounts({ [dead]: all(3, 3) });
  await assertCounts({ [other.address]: all(3, 0) }, 'other');
  await put(answering);
  for (const status of [404, 502, 503]) {
    assert.equal((await web.send('GET', `/fallback/${status}`)).body, 'ok');
  }
  await assertCounts({ [answering.address]: all(3, 0) });
  await assertCounts({ [other.address]: all(6, 0) }, 'other');
  // and to one that fails as well
  await put(dead);
  const gone = await deadAddress();
  await admin.write('PUT', '/v1/upstreams/other', { max_fails: 0, peers: peersOf(gone) });
  assert.equal((await web.send('GET', '/fallback')).status, 502);
  await assertCounts({ [dead]: all(4, 4) });
  await assertCounts({ [gone]: all(1, 1) }, 'other');
  // or has nobody
  await admin.write('PUT', '/v1/upstreams/other', { peers: {} });
  assert.equal((await web.send('GET', '/fallback')).status, 502);
  await assertCounts({ [dead]: all(5, 5) });
});

test('active requests are seen while they last', async () => {
  const peer = await startWaiting();
  await put(peer);
  const clients = Array.from({ length: 6 }, () => client(url));
  const pending = clients.map((one) => one.send('GET', '/'));
  await until('all are there', () => peer.waiting.length === 6);
  await assertCounts({ [peer.address]: { active: 6 } });
  for (const response of peer.waiting.splice(0, 2)) response.end('ok');
  await assertCounts({ [peer.address]: { active: 4 } });
  for (const response of peer.waiting) response.end('ok');
  await Promise.all(pending);
  await assertCounts({ [peer.address]: all(6, 0) });
});

test('clients that go away leave nothing behind', async () => {
  const [peer, dead] = [await startWaiting(), await deadAddress()];
  await put([peer, { backup: true }], dead);
  const sockets = Array.from({ length: 5 }, () => {
    const socket = connect(open.nginx.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    return socket;
  });
  await until('all are there', () => peer.waiting.length === 5);
  for (const socket of sockets) socket.destroy();
  await assertCounts({ [peer.address]: all(5, 0), [dead]: all(5, 5) });
});

test('a try that has nowhere else to go is counted once', async () => {
  const failing = await startWaiting();
  const dead = await deadAddress();
  await put(failing, [dead, { backup: true }]);
  const pid = (await workers[0].send('GET', '/@')).headers['x-worker'];
  const pending = workers[0].send('GET', '/');
  const response = await failing.next();
  await put();
  // The worker that holds the request learns of it by another one.
  await until('its worker knows', async () => {
    const { status, headers } = await client(url).send('GET', '/');
    return status === 503 && headers['x-worker'] === pid;
  });
  response.socket?.destroy();
  assert.equal((await pending).status, 502);
  await put(failing);
  await assertCounts({ [failing.address]: all(1, 1) });
});

test('subrequests reach peers too, and leave nothing active', async () => {
  const peer = await startPeer();
  await put(peer);
  for (let i = 0; i < 5; i += 1) assert.equal((await web.get('/sub')).trim(), '200 200');
  assert.equal(peer.requests.length, 10);
  await web.send('GET', '/');
  await assertCounts({ [peer.address]: { failures: 0, active: 0 } });
});

test('a stale connection is tried again and the request counted once more', async () => {
  const peer = await startPeer(cutSecond);
  await put(peer);
  const send = async (by: Client, n: number) => {
    for (let i = 0; i < n; i += 1) assert.equal((await by.send('GET', '/')).status, 200);
  };
  await send(workers[0], 5);
  await assertCounts({ [peer.address]: { requests: peer.requests.length, active: 0 } });
});

test('an old worker counts its last requests after a HUP', async () => {
  const peer = await startWaiting();
  await put(peer);
  const before = open.nginx.workers();
  const pending = workers.map((worker) => worker.send('GET', '/'));
  await until('both are there', () => peer.waiting.length === 2);
  open.nginx.hup();
  await until('new workers too', () => open.nginx.workers().length === 4);
  await assertCounts({ [peer.address]: all(2, 0, 2) });
  for (const response of peer.waiting) response.socket?.destroy();
  for (const { status } of await Promise.all(pending)) assert.equal(status, 502);
  await until('new workers alone', () => open.nginx.workers().every((w) => !before.includes(w)));
  await assertCounts({ [peer.address]: all(2, 2) });
});

test('a killed worker takes its active requests along', async () => {
  const peer = await startWaiting();
  await put(peer);
  const pending = workers.map((worker) => worker.send('GET', '/').catch(() => undefined));
  await until('both are there', () => peer.waiting.length === 2);
  await assertCounts({ [peer.address]: { active: 2 } });
  for (const pid of open.nginx.workers()) process.kill(pid, 'SIGKILL');
  await Promise.all(pending);
  await assertCounts({ [peer.address]: { active: 0 } });
  peer.waiting.length = 0;
  const again = client(url).send('GET', '/');
  (await peer.next()).end('ok');
  assert.equal((await again).status, 200);
});
