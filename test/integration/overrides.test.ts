// Proves that what a person says of a peer goes before what its upstream's owner
// says, in every worker from the next request on, until it ends or is taken away.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { until } from '../stack/process.ts';
import { deadAddress, type Peer, peersOf, startPeers } from './backends.ts';
import {
  assertProblem,
  type Client,
  onTwoWorkers,
  peerStatus,
  read,
  startOpenresty,
} from './openresty.ts';

const { admin, nginx, web } = await startOpenresty();
const workers = await onTwoWorkers(`127.0.0.1:${nginx.port}`);
const [a, b] = (await startPeers(2)) as [Peer, Peer];
const path = '/v1/upstreams/web';
const all = '/v1/upstreams';
const soon = (seconds: number) => Math.floor(Date.now() / 1000) + seconds;

const say = (peer: Peer, override: object | null) =>
  admin.write('PATCH', path, { overrides: { [peer.address]: override } });

/** As an agent has it. */
const owned = (peers: object, more: object = {}) =>
  admin.write('PATCH', all, { upstreams: { web: { owner: 'reloadless', peers, ...more } } });

/** How many of n requests to each worker reach each peer. */
async function shares(n = 8): Promise<[number, number]> {
  const before = [a.requests.length, b.requests.length] as const;
  const statuses = new Set<number>();
  for (const worker of workers) statuses.add(await many(worker, n));
  assert.deepEqual([...statuses], [200]);
  return [a.requests.length - before[0], b.requests.length - before[1]];
}

async function many(worker: Client, n: number): Promise<number> {
  let status = 200;
  for (let i = 0; i < n; i += 1) status = Math.max(status, (await worker.send('GET', '/')).status);
  return status;
}

beforeEach(async () => {
  await admin.write('PUT', all, { upstreams: {} });
  await owned(peersOf(a, b));
});

for (const fields of [{ drain: true }, { down: true }, { weight: 0 }]) {
  test(`${JSON.stringify(fields)} holds over changes of the owner`, async () => {
    await say(a, { ...fields, note: 'disk swap', by: 'eve@db' });
    assert.deepEqual(await shares(), [0, 16]);
    await owned({ [a.address]: { weight: 5, drain: false, id: 'a' } });
    assert.deepEqual(await shares(), [0, 16]);
    await owned({}, { balance: 'least_conn' });
    assert.deepEqual(await shares(), [0, 16]);
    await owned({ [a.address]: null });
    assert.deepEqual(await shares(), [0, 16]);
    await owned(peersOf(a));
    assert.deepEqual(await shares(), [0, 16]);
    const { document } = await read(admin);
    assert.deepEqual(document.upstreams.web, {
      owner: 'reloadless',
      balance: 'least_conn',
      overrides: { [a.address]: { ...fields, note: 'disk swap', by: 'eve@db' } },
      peers: { [a.address]: {}, [b.address]: {} },
    });
    assert.notEqual((await peerStatus(admin, a)).state, 'up');
  });
}

test('what is said of one peer may bring it back, and is taken away field by field', async () => {
  await owned({ [a.address]: { drain: true, weight: 3 } });
  assert.deepEqual(await shares(), [0, 16]);
  await say(a, { drain: false, weight: 1 });
  assert.deepEqual(await shares(), [8, 8]);
  await say(a, { weight: null });
  assert.deepEqual(await shares(), [12, 4]);
  await say(a, { drain: null, note: 'nothing is said any more' });
  assert.deepEqual(await shares(), [0, 16]);
  const { document } = await read(admin);
  assert.equal('overrides' in (document.upstreams.web ?? {}), false);
});

test('it ends at its time, without a request or a write', async () => {
  await say(a, { drain: true, expires_at: soon(3) });
  await say(b, { weight: 2, expires_at: soon(1000) });
  assert.deepEqual(await shares(), [0, 16]);
  const { etag } = await read(admin);
  await until('the end', async () => (await read(admin)).etag !== etag);
  const [of, other] = await shares(6);
  assert.deepEqual([of, other], [4, 8]);
  const { document } = await read(admin);
  assert.deepEqual(
    Object.keys((document.upstreams.web as { overrides?: object }).overrides ?? {}),
    [b.address],
  );
  // one that has ended when it comes is none
  await say(a, { drain: true, expires_at: 1 });
  assert.deepEqual(await shares(6), [4, 8]);
});

test('an upstream of which only overrides are left goes with the last of them', async () => {
  await say(a, { drain: true });
  await admin.write('PATCH', all, { upstreams: { web: { owner: null, peers: null } } });
  assert.deepEqual((await read(admin)).document.upstreams.web, {
    overrides: { [a.address]: { drain: true } },
    peers: {},
  });
  await owned(peersOf(a, b));
  assert.deepEqual(await shares(), [0, 16]);
  await admin.write('PATCH', all, { upstreams: { web: { owner: null, peers: null } } });
  await say(a, null);
  assert.equal((await read(admin)).document.upstreams.web, undefined);
});

test('all peers drained: nobody is served, and the error log says so', async () => {
  await say(a, { drain: true });
  await say(b, { down: true });
  for (const worker of workers) assert.equal((await worker.send('GET', '/')).status, 503);
  await until('the log says it', async () => /upstream web has no peer/.test(nginx.errorLog));
});

test('max_conns and max_fails of one peer', async () => {
  const dead = { address: await deadAddress() } as Peer;
  await owned({ [b.address]: null, [dead.address]: {} });
  await say(dead, { max_fails: 0 });
  assert.equal(await many(web, 12), 200);
  assert.equal((await peerStatus(admin, dead)).state, 'up');
  await say(dead, { max_conns: 1, drain: true });
  assert.equal(await many(web, 6), 200);
});

test('128 an upstream, and no more', async () => {
  const overrides: Record<string, object> = {};
  for (let i = 0; i < 128; i += 1) overrides[`10.0.0.${i}:80`] = { drain: true };
  await admin.write('PATCH', path, { overrides });
  const answer = await admin.send('PATCH', path, { overrides: { '10.0.1.1:80': { drain: true } } });
  assert.equal(answer.status, 422);
  assertProblem(answer, { pointer: '/overrides', detail: /129 overrides: expected at most 128/ });
  await admin.write('PATCH', path, {
    overrides: { '10.0.0.1:80': null, '10.0.1.1:80': { drain: true } },
  });
});

test('two people at once: the second is told by If-Match', async () => {
  const { etag } = await read(admin);
  const say = (peer: Peer) =>
    admin.send(
      'PATCH',
      path,
      { overrides: { [peer.address]: { drain: true } } },
      { 'if-match': etag },
    );
  assert.equal((await say(a)).status, 200);
  assert.equal((await say(b)).status, 412);
  assert.deepEqual(await shares(), [0, 16]);
});

test('it stands over a reload', async () => {
  await say(a, { down: true });
  const before = a.requests.length;
  const old = nginx.workers();
  process.kill(nginx.pid as number, 'SIGHUP');
  await until('other workers', () => nginx.workers().every((pid) => !old.includes(pid)));
  for (const worker of await onTwoWorkers(`127.0.0.1:${nginx.port}`)) {
    assert.equal(await many(worker, 8), 200);
  }
  assert.equal(a.requests.length, before);
});
