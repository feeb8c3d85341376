// Proves the commands by which a person says something of one peer.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reloadless } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { type Peer, peersOf, startPeers, startWaiting } from './backends.ts';
import { read, startOpenresty } from './openresty.ts';

const { admin, nginx, web } = await startOpenresty();
const [a, b] = (await startPeers(2)) as [Peer, Peer];
const run = (...args: string[]) => reloadless([...args, '--openresty', nginx.admin]);
const said = async () =>
  (await read(admin)).document.upstreams.web as unknown as {
    overrides?: Record<string, Record<string, unknown>>;
  };

test('drain, set, undrain, clear', async () => {
  await admin.write('PUT', '/v1/upstreams/web', { owner: 'reloadless', peers: peersOf(a, b) });
  const drained = await run('drain', 'web', a.address, '--for', '30m', '--note', 'disk swap');
  assert.equal(drained.code, 0, drained.stderr);
  assert.match(
    drained.stdout,
    new RegExp(`: ${a.address} of web: drain=true until 20.*Z by .+@.+: disk swap\n$`),
  );
  const { expires_at, by, ...rest } = (await said()).overrides?.[a.address] ?? {};
  assert.deepEqual(rest, { drain: true, note: 'disk swap' });
  assert.ok(Math.abs(Number(expires_at) - Date.now() / 1000 - 1800) < 60);
  assert.match(String(by), /.@./);
  const table = await run('status');
  assert.match(table.stdout, /drain .*drain=true until .*: disk swap\n/);

  assert.equal((await run('set', 'web', a.address, 'weight=5', 'zone=a')).code, 0);
  const { by: _, ...now } = (await said()).overrides?.[a.address] ?? {};
  assert.deepEqual(now, { drain: true, weight: 5, zone: 'a' });
  assert.equal((await run('undrain', 'web', a.address)).code, 0);
  assert.equal((await run('set', 'web', a.address, 'zone=')).code, 0);
  assert.equal((await said()).overrides?.[a.address]?.weight, 5);
  assert.equal((await run('set', 'web', a.address, 'weight=')).code, 0);
  assert.equal((await said()).overrides, undefined);

  await run('set', 'web', a.address, 'down=true');
  const last = await run('drain', 'web', b.address);
  assert.match(last.stderr, /web has no peer that takes new requests/);
  for (const { address } of [a, b]) assert.equal((await run('clear', 'web', address)).code, 0);
  assert.equal((await said()).overrides, undefined);
});

test('what is not there is not made, and what is wrong is named', async () => {
  const before = await read(admin);
  for (const [args, code, why] of [
    [['drain', 'nope', a.address], 1, /there is no upstream nope/],
    [['drain', 'web', '10.0.0.5:80'], 1, /web has no peer "10.0.0.5:80": it has 127/],
    [['set', 'web', a.address, 'weight=many'], 2, /weight: "many" is not an integer/],
    [['set', 'web', a.address, 'wieght=1'], 2, /set: expected field=value/],
    [['drain', 'web', a.address, '--note', 'a\u001b[2J'], 2, /note: .* without control/],
    [['drain', 'a/../b', a.address], 2, /is not an upstream/],
    [['drain', 'web', a.address, '--for', 'ever'], 2, /duration/],
  ] as const) {
    const { code: was, stderr } = await run(...args);
    assert.match(stderr, why);
    assert.equal(was, code);
    assert.equal(stderr.includes('\u001b'), false);
  }
  assert.deepEqual(await read(admin), before);
});

test('--wait ends when the last request has left the peer', async () => {
  const slow = await startWaiting();
  await admin.write('PUT', '/v1/upstreams/web', { peers: peersOf(slow) });
  const pending = web.send('GET', '/');
  const response = await slow.next();
  const short = await run('drain', 'web', slow.address, '--wait', '--timeout', '4s');
  assert.equal(short.code, 1);
  assert.match(short.stderr, /not done in 4 s/);
  let isOver = false;
  const waiting = run('drain', 'web', slow.address, '--wait').finally(() => {
    isOver = true;
  });
  await until('it is drained', async () => (await said()).overrides !== undefined);
  assert.equal(isOver, false);
  response.end('late');
  assert.equal((await pending).status, 200);
  const { code, stdout } = await waiting;
  assert.equal(code, 0);
  assert.match(stdout, /has no request left\n$/);
});
