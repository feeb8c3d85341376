// Proves what a request gets for which there is no peer, and that nginx's error
// log says so once a second, whatever a client asks for.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { deadAddress, peersOf, startPeer, startWaiting } from './backends.ts';
import { client, noPeer, startOpenresty, upstreamBlock } from './openresty.ts';

const open = await startOpenresty({
  workers: 1,
  servers: `
    map $uri $reloadless_upstream {
        ~^/path/(?<service>[^/]+)  $service;
    }
    upstream services {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
    }
    ${upstreamBlock('ghost')}`,
  locations: `
    location /bare { proxy_pass http://web; }
    location /bare-ghost { proxy_pass http://ghost; }
    location /ghost {
        access_by_lua_block { require("reloadless").access("ghost") }
        proxy_pass http://ghost;
    }
    location /sticky {
        header_filter_by_lua_block { require("reloadless").header() }
        proxy_pass http://web;
    }
    location /path { proxy_pass http://services; }`,
});
const { admin, web, nginx } = open;

const put = (settings: object, ...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', '/v1/upstreams/web', { ...settings, peers: peersOf(...peers) });

/** What Reloadless says in the error log from now on, and the seconds until then. */
function listen(): () => { lines: string[]; seconds: number } {
  const [{ length }, from] = [nginx.errorLog, performance.now()];
  return () => ({
    lines: nginx.errorLog
      .slice(length)
      .split('\n')
      .filter((line) => line.includes('reloadless: ')),
    seconds: (performance.now() - from) / 1000,
  });
}

/** Sends many requests, and asserts that the log says it, and once a second at most. */
async function assertTold(path: string, status: number, expected: RegExp): Promise<void> {
  const told = listen();
  for (let i = 0; i < 50; i += 1) assert.equal((await web.send('GET', path)).status, status);
  const { lines, seconds } = told();
  assert.ok(lines.length >= 1 && lines.length <= 1 + seconds, lines.join('\n'));
  for (const line of lines) assert.match(line, /\[error\]/);
  for (const line of lines) assert.match(line, expected);
}

test('an upstream that nobody knows', async () => {
  await admin.write('PUT', '/v1/upstreams', { upstreams: {} });
  for (const [path, status, name] of [
    ['/ghost', 503, 'ghost'],
    ['/bare-ghost', noPeer, 'ghost'],
    ['/path/api/', noPeer, 'api'],
    ['/path/', noPeer, ''],
    // no client writes lines of its own
    ['/path/a%0a%22%c3%bc/', noPeer, 'a????'],
  ] as const) {
    await sleep(1100);
    await assertTold(
      path,
      status,
      new RegExp(`there is no upstream "${name.replaceAll('?', '\\?')}" in`),
    );
  }
});

test('an upstream without a peer', async () => {
  await put({});
  await assertTold('/bare', noPeer, /upstream web has no peer(?! left)/);
  await sleep(1100);
  await put({}, [await startPeer(), { drain: true }]);
  await assertTold('/', 503, /upstream web has no peer(?! left)/);
});

test('an upstream whose peers are all at max_conns', async () => {
  const peer = await startWaiting();
  await put({}, [peer, { max_conns: 1 }]);
  const pending = client(`127.0.0.1:${nginx.port}`).send('GET', '/bare');
  const response = await peer.next();
  await sleep(1100);
  await assertTold('/bare', noPeer, /upstream web has no peer left for a request/);
  response.end('ok');
  assert.equal((await pending).status, 200);
});

test('a retry that finds nobody', async () => {
  const failing = await startWaiting();
  const dead = await deadAddress();
  await put({ max_fails: 0 }, failing, [dead, { backup: true }]);
  const pending = web.send('GET', '/bare');
  const response = await failing.next();
  await put({});
  // another request, so that the worker knows
  assert.equal((await client(`127.0.0.1:${nginx.port}`).send('GET', '/bare')).status, noPeer);
  response.socket?.destroy();
  assert.equal((await pending).status, 502);
});

test('sticky without header() in the location is said once', async () => {
  const peer = await startPeer();
  const told = listen();
  await put({ sticky: 'sid' }, peer);
  const held = `sid=${createHash('md5').update(peer.address).digest('hex')}`;
  for (let i = 0; i < 5; i += 1) await web.send('GET', '/sticky');
  for (let i = 0; i < 5; i += 1) await web.send('GET', '/bare', undefined, { cookie: held });
  assert.deepEqual(told().lines, []);
  for (let i = 0; i < 50; i += 1) await web.send('GET', '/bare');
  const { lines } = told();
  assert.equal(lines.length, 1, lines.join('\n'));
  assert.match(lines[0] ?? '', /\[error\].*upstream web is sticky.*header\(\).*GET \/bare/);
});
