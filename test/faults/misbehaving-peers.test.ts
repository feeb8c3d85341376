// Proves that max_fails, fail_timeout and slow_start mean what they mean in nginx:
// who fails is left alone, tried once, and comes back; never is everybody out.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import {
  cut,
  deadAddress,
  hang,
  type Peer,
  peersOf,
  startPeer,
  startPeers,
} from '../integration/backends.ts';
import { Client, peerStatus, startOpenresty } from '../integration/openresty.ts';
import { until } from '../stack/process.ts';

// Each worker learns for itself.
const open = await startOpenresty({
  workers: 1,
  locations: `
    location /sub {
        content_by_lua_block { ngx.exit(ngx.location.capture("/").status) }
    }
    location /sub-logged/ { log_subrequest on; proxy_pass http://web; }
    location /sub-logged {
        content_by_lua_block { ngx.exit(ngx.location.capture("/sub-logged/").status) }
    }`,
});
const { admin, web } = open;

beforeEach(() => admin.write('PUT', '/v1/upstreams', { upstreams: {} }));

const put = (settings: object, ...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', '/v1/upstreams/web', { ...settings, peers: peersOf(...peers) });

const addressOf = (peer: Peer | string) => (typeof peer === 'string' ? peer : peer.address);
const stateOf = (peer: Peer | string) => peerStatus(admin, { address: addressOf(peer) });

/** Sends n requests one by one. @returns the statuses that came, each once */
async function get(n: number): Promise<number[]> {
  const seen = new Set<number>();
  for (let i = 0; i < n; i += 1) seen.add((await web.send('GET', '/')).status);
  return [...seen];
}

async function assertState(peer: Peer | string, state: string): Promise<void> {
  await until(`${addressOf(peer)} is ${state}`, async () => (await stateOf(peer)).state === state);
}

/**
 * A peer that cuts connections until it is told to answer. Each cut counts, since
 * it has never answered: no connection to it can be a stale one.
 */
async function startSick() {
  const sick = { isSick: true, peer: undefined as unknown as Peer };
  sick.peer = await startPeer((request, response) => {
    if (sick.isSick) cut(request);
    else response.end('ok');
  });
  return sick;
}

test('a peer that failed gets nothing more until fail_timeout is over', async () => {
  const good = await startPeer();
  const [sick, dead] = [await startSick(), await deadAddress()];
  await put({ fail_timeout: 60 }, good, sick.peer, dead);
  assert.deepEqual(await get(60), [200]);
  assert.equal(sick.peer.requests.length, 1);
  assert.equal(good.requests.length, 60);
  await assertState(dead, 'ejected');
  await assertState(sick.peer, 'ejected');
  await assertState(good, 'up');
  assert.deepEqual([(await stateOf(dead)).failures, (await stateOf(sick.peer)).failures], [1, 1]);
  // a change of the list does not make it forget
  await admin.write('PATCH', '/v1/upstreams/web', { peers: { [good.address]: { weight: 3 } } });
  assert.deepEqual(await get(30), [200]);
  assert.equal(sick.peer.requests.length, 1);
});

test('max_fails failures are needed, and 0 ejects nobody', async () => {
  const good = await startPeer();
  const sick = await startSick();
  await put({ max_fails: 3, fail_timeout: 60 }, good, sick.peer);
  assert.deepEqual(await get(40), [200]);
  assert.equal(sick.peer.requests.length, 3);
  await assertState(sick.peer, 'ejected');

  const other = await startSick();
  await put({ max_fails: 0 }, good, other.peer);
  assert.deepEqual(await get(40), [200]);
  assert.ok(other.peer.requests.length >= 20, `${other.peer.requests.length}`);
  await assertState(other.peer, 'up');
});

test('a peer has a max_fails of its own, or that of its upstream as it is now', async () => {
  const [good, one, two, three] = [
    await startPeer(),
    await startSick(),
    await startSick(),
    await startSick(),
  ];
  await put({ max_fails: 0, fail_timeout: 60 }, good, [one.peer, { max_fails: 2 }], two.peer);
  assert.deepEqual(await get(60), [200]);
  assert.equal(one.peer.requests.length, 2);
  assert.ok(two.peer.requests.length >= 20, `${two.peer.requests.length}`);
  await assertState(two.peer, 'up');

  const before = two.peer.requests.length;
  await admin.write('PATCH', '/v1/upstreams/web', { max_fails: 3 });
  await admin.write('PATCH', '/v1/upstreams/web', { peers: { [three.peer.address]: {} } });
  await get(60);
  assert.equal(two.peer.requests.length, before + 3);
  assert.equal(three.peer.requests.length, 3);
  assert.equal(one.peer.requests.length, 2);
});

test('failures further apart than fail_timeout do not add up', async () => {
  const good = await startPeer();
  let cuts = 0;
  const sick = await startPeer((request, response) => {
    cuts -= 1;
    if (cuts >= 0) cut(request);
    else response.end('ok');
  });
  await put({ max_fails: 2, fail_timeout: 1 }, good, sick);
  for (let i = 0; i < 3; i += 1) {
    // One that counts, then answers. Once it has answered, the first is forgiven.
    cuts = i === 0 ? 1 : 2;
    assert.deepEqual(await get(10), [200]);
    assert.ok(cuts < 0);
    await new Promise((resolve) => setTimeout(resolve, 1200));
    assert.deepEqual(await get(2), [200]);
  }
  await assertState(sick, 'up');
});

test('the last try of a request counts as well: refused, cut, too late', async () => {
  const good = await startPeer();
  const bad: [Peer | string, number][] = [
    [await deadAddress(), 1],
    [await startPeer(cut), 1],
    [await startPeer(hang), 1],
  ];
  for (const [peer, failures] of bad) {
    await put({ max_tries: 1, fail_timeout: 60, read_timeout: 1 }, good, peer);
    // Every other request fails, which has no other try.
    const statuses = await get(10);
    assert.ok(statuses.some((status) => status === 502 || status === 504));
    await assertState(peer, 'ejected');
    assert.deepEqual(await get(10), [200]);
    assert.equal((await stateOf(peer)).failures, failures);
  }
});

test('after fail_timeout one request tries the peer; it is back once it answers', async () => {
  const good = await startPeer();
  const sick = await startSick();
  await put({ fail_timeout: 1 }, good, sick.peer);
  assert.deepEqual(await get(6), [200]);
  assert.equal(sick.peer.requests.length, 1);
  for (let probes = 1; probes <= 2; probes += 1) {
    await until('a probe', async () => {
      assert.deepEqual(await get(1), [200]);
      return sick.peer.requests.length === 1 + probes;
    });
    await assertState(sick.peer, 'ejected');
  }

  sick.isSick = false;
  const { length } = sick.peer.requests;
  await until('a probe', async () => {
    assert.deepEqual(await get(1), [200]);
    return sick.peer.requests.length > length;
  });
  const before = sick.peer.requests.length;
  assert.deepEqual(await get(20), [200]);
  assert.equal(sick.peer.requests.length - before, 10);
  await assertState(sick.peer, 'up');
});

test('subrequests bring a peer back too: it is believed until it fails', async () => {
  const good = await startPeer();
  const sick = await startSick();
  await put({ fail_timeout: 1 }, good, sick.peer);
  const sub = async () => assert.equal((await web.send('GET', '/sub')).status, 200);
  for (let i = 0; i < 6; i += 1) await sub();
  assert.equal(sick.peer.requests.length, 1);
  await until('a probe', async () => {
    await sub();
    return sick.peer.requests.length > 1;
  });
  // It failed, as the one try before.
  await assertState(sick.peer, 'ejected');

  sick.isSick = false;
  const { length } = sick.peer.requests;
  await until('another', async () => {
    await sub();
    return sick.peer.requests.length > length;
  });
  const before = sick.peer.requests.length;
  for (let i = 0; i < 20; i += 1) await sub();
  assert.equal(sick.peer.requests.length - before, 10);
});

test('with log_subrequest the last try of a subrequest counts as well', async () => {
  const good = await startPeer();
  const dead = await deadAddress();
  await put({ max_tries: 1, fail_timeout: 60 }, good, dead);
  const statuses: number[] = [];
  for (let i = 0; i < 20; i += 1) statuses.push((await web.send('GET', '/sub-logged')).status);
  assert.equal(statuses.filter((status) => status !== 200).length, 1);
});

test('while the probe is not answered no other request goes there', async () => {
  const good = await startPeer();
  let mode: 'cut' | 'hang' = 'cut';
  const sick = await startPeer((request, response) => {
    if (mode === 'cut') cut(request);
    else response.on('close', () => {});
  });
  await put({ fail_timeout: 1, read_timeout: 60 }, good, sick);
  assert.deepEqual(await get(6), [200]);
  assert.equal(sick.requests.length, 1);
  await assertState(sick, 'ejected');
  mode = 'hang';
  let probe: Promise<unknown> | undefined;
  await until('a probe', async () => {
    const one = new Client(`127.0.0.1:${open.nginx.port}`);
    probe = one.send('GET', '/').catch(() => undefined);
    const answered = await Promise.race([
      probe.then(() => true),
      until('it is there', () => sick.requests.length === 2, 1).then(() => false),
    ]);
    if (answered) one.close();
    return !answered;
  });
  assert.deepEqual(await get(40), [200]);
  assert.equal(sick.requests.length, 2);
  await sick.stop();
  await probe;
});

test('backups serve while all primaries are ejected', async () => {
  const sick = [await startSick(), await startSick()];
  const peers = sick.map(({ peer }) => peer);
  const backup = await startSick();
  backup.isSick = false;
  await put({ fail_timeout: 60 }, ...peers, [backup.peer, { backup: true }]);
  assert.deepEqual(await get(20), [200]);
  assert.equal(backup.peer.requests.length, 20);
  assert.deepEqual(
    peers.map(({ requests }) => requests.length),
    [1, 1],
  );

  // The backup fails too: the others are asked again, at once.
  backup.isSick = true;
  for (const one of sick) one.isSick = false;
  assert.deepEqual(await get(20), [200]);
});

test('when all are ejected all serve', async () => {
  const sick = [await startSick(), await startSick()];
  const peers = sick.map(({ peer }) => peer);
  await put({ fail_timeout: 60 }, ...peers);
  assert.deepEqual(await get(2), [502]);
  for (const peer of peers) await assertState(peer, 'ejected');
  for (const one of sick) one.isSick = false;
  const before = peers.map(({ requests }) => requests.length);
  assert.deepEqual(await get(20), [200]);
  assert.deepEqual(
    peers.map(({ requests }, i) => requests.length - (before[i] ?? 0)),
    [10, 10],
  );
  for (const peer of peers) await assertState(peer, 'up');
});

test('the only peer serves again as soon as it answers', async () => {
  const sick = await startSick();
  await put({ fail_timeout: 60 }, sick.peer);
  for (let i = 0; i < 3; i += 1) assert.deepEqual(await get(1), [502]);
  sick.isSick = false;
  assert.deepEqual(await get(10), [200]);
});

for (const balance of ['round_robin', 'least_conn', 'random', 'ewma']) {
  test(`slow_start raises the share of a new peer step by step, ${balance}`, async () => {
    const [fresh, ...old] = (await startPeers(5)) as [Peer, ...Peer[]];
    await put({ balance }, ...old);
    assert.deepEqual(await get(10), [200]);
    await put({ balance }, ...old, [fresh, { slow_start: 6 }]);
    // It begins with a twentieth of its weight, and has a sixth after a second.
    const began = Date.now();
    assert.deepEqual(await get(200), [200]);
    const first = fresh.requests.length;
    if (Date.now() - began < 1000) assert.ok(first < 30, `${first} of 200`);
    await until('it has its share', async () => {
      const before = fresh.requests.length;
      assert.deepEqual(await get(100), [200]);
      return fresh.requests.length - before >= 15;
    });
  });
}

test('slow_start of the upstream is that of its peers', async () => {
  const [old, fresh, quick] = (await startPeers(3)) as [Peer, Peer, Peer];
  await put({}, old);
  await get(1);
  await put({ slow_start: 600 }, old, fresh, [quick, { slow_start: 0 }]);
  await get(100);
  assert.ok(fresh.requests.length < 10, `${fresh.requests.length}`);
  assert.ok(quick.requests.length > 40, `${quick.requests.length}`);
});

test('slow_start raises the share of a peer that is back', async () => {
  const good = await startPeer();
  const sick = await startSick();
  await put({ fail_timeout: 1 }, good, [sick.peer, { slow_start: 20 }]);
  await until('it is ejected', async () => {
    assert.deepEqual(await get(5), [200]);
    return (await stateOf(sick.peer)).state === 'ejected';
  });
  sick.isSick = false;
  const failed = sick.peer.requests.length;
  await until('a probe', async () => {
    assert.deepEqual(await get(1), [200]);
    return sick.peer.requests.length > failed;
  });
  const { length } = sick.peer.requests;
  const began = Date.now();
  assert.deepEqual(await get(100), [200]);
  if (Date.now() - began < 4000) assert.ok(sick.peer.requests.length - length < 35);
});

test('stale connections after a restart of the backend do not eject it', async () => {
  const first = await startPeer();
  const other = await startPeer();
  await put({ fail_timeout: 60 }, first, other);
  assert.deepEqual(await get(10), [200]);
  const port = Number(first.address.split(':')[1]);
  await first.stop();
  const second = await startPeer(undefined, '127.0.0.1', port);
  assert.deepEqual(await get(20), [200]);
  assert.ok(second.requests.length >= 9, `${second.requests.length}`);
  await assertState(second, 'up');
});
