// Proves that a wall clock that is set back or forward changes nothing for peers
// that are ejected or full: nginx runs on a clock of the test's own.
import assert from 'node:assert/strict';
import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, beforeEach, test } from 'node:test';
import {
  deadAddress,
  peersOf,
  startPeer,
  startPeers,
  startWaiting,
} from '../integration/backends.ts';
import { onTwoWorkers, peerStatus, startOpenresty, tries } from '../integration/openresty.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { until } from '../stack/process.ts';

const library = readdirSync('/usr/lib')
  .map((folder) => join('/usr/lib', folder, 'faketime/libfaketime.so.1'))
  .find(existsSync);
assert.ok(library, 'libfaketime is missing: run node test/stack/install.mjs serve check');

const { folder, remove } = temporaryFolder();
after(remove);
const file = join(folder, 'clock');

/** Sets the wall clock that nginx sees to the true one and so much more. */
function setClock(offset: string): void {
  writeFileSync(`${file}.new`, offset);
  renameSync(`${file}.new`, file);
}

setClock('+0');
const faked = {
  LD_PRELOAD: library,
  FAKETIME_TIMESTAMP_FILE: file,
  FAKETIME_NO_CACHE: '1',
  FAKETIME_DONT_FAKE_MONOTONIC: '1',
};
const open = await startOpenresty({
  wrapper: ['env', ...Object.entries(faked).map((pair) => pair.join('='))],
  main: Object.keys(faked)
    .map((name) => `env ${name};`)
    .join(' '),
  locations: `
    location = /v1/status { return 204; }
    location = /now { content_by_lua_block { ngx.print(ngx.now()) } }`,
});
const { admin, web } = open;
const url = `127.0.0.1:${open.nginx.port}`;
const path = '/v1/upstreams/web';
const workers = await onTwoWorkers(url);
const [one, two] = workers;

beforeEach(() => admin.write('PUT', '/v1/upstreams', { upstreams: {} }));
afterEach(() => setClock('+0'));

/** Steps the clock, and asserts that nginx sees it. */
async function step(offset: string): Promise<void> {
  const before = Number(await web.get('/now'));
  setClock(offset);
  const wanted = before + Number(offset.slice(0, -1)) * 3600;
  await until('nginx sees it', async () => Math.abs(Number(await web.get('/now')) - wanted) < 60);
}

test('an ejected peer is tried after fail_timeout, although the clock went back', async () => {
  const [good] = await startPeers(1);
  const dead = await deadAddress();
  await admin.write('PUT', path, { fail_timeout: 1, peers: peersOf(good ?? '', dead) });
  for (let i = 0; i < 4; i += 1) await one.send('GET', '/');
  await step('-1h');
  const back = await startPeer(undefined, '127.0.0.1', Number(dead.split(':')[1]));
  await until('it has a request', async () => {
    assert.equal((await one.send('GET', '/')).status, 200);
    return back.requests.length > 0;
  });
});

test('a place that another worker has freed is found, although the clock went back', async () => {
  const holding = await startWaiting();
  await admin.write('PUT', path, { peers: peersOf([holding, { max_conns: 1 }]) });
  const pending = one.send('GET', '/');
  const response = await holding.next();
  assert.ok((await two.send('GET', '/')).status >= 502);
  await step('-1h');
  response.end('held');
  assert.equal((await pending).status, 200);
  const again = until('a place', async () => (await two.send('GET', '/')).status === 200);
  (await holding.next()).end('found');
  await again;
});

test('an ejected peer is left alone for fail_timeout, although the clock went on', async () => {
  const [good] = await startPeers(1);
  await admin.write('PUT', path, {
    fail_timeout: 60,
    peers: peersOf(good ?? '', await deadAddress()),
  });
  for (let i = 0; i < 4; i += 1) await one.send('GET', '/');
  await step('+1h');
  for (let i = 0; i < 10; i += 1) assert.equal(tries(await one.send('GET', '/')).length, 1);
});

test('what a killed worker had under way is not shown, although the clock went back', async () => {
  const waiting = await startWaiting();
  await admin.write('PUT', path, { peers: peersOf(waiting) });
  const pid = Number((await one.send('GET', '/now')).headers['x-worker']);
  const lost = one.send('GET', '/').catch(() => undefined);
  await waiting.next();
  const active = async () => (await peerStatus(admin, waiting)).active;
  await until('it is counted', async () => (await active()) === 1);
  await step('-1h');
  process.kill(pid, 'SIGKILL');
  await lost;
  await until('it is gone', async () => (await active()) === 0);
});
