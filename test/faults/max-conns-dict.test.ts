// Proves that max_conns holds whatever comes and goes beside it, that its dict
// does not fill up with peers that are gone, and what happens where the dict is
// full or missing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { peersOf, startPeer, startWaiting } from '../integration/backends.ts';
import {
  assertRefused,
  client,
  deadPeer,
  type Openresty,
  serve,
  startOpenresty,
  upstreamBlock,
} from '../integration/openresty.ts';
import { until } from '../stack/process.ts';

const line = 'lua_shared_dict reloadless_inflight 1m;';

const options = {
  workers: 1,
  servers: upstreamBlock('churn'),
  locations: `
    location /churn { proxy_pass http://churn; }
    location = /counts {
        content_by_lua_block {
            for _, key in ipairs(ngx.shared.reloadless_inflight:get_keys(0)) do
                if key:find("^[mo]:") then ngx.say(key) end
            end
        }
    }`,
};

/** Sends a request to every one of `peers` in turn, none of which answers. */
async function churn({ admin, web }: Openresty, peers: object): Promise<void> {
  await admin.write('PUT', '/v1/upstreams/churn', { max_fails: 0, peers });
  assert.equal((await web.send('GET', '/churn')).status, 502);
}

/** Peers of numbers from i on, with what `fields` gives each. */
function some(i: number, n: number, fields: object): object {
  return Object.fromEntries(Array.from({ length: n }, (_, k) => [deadPeer(i + k), fields]));
}

/** A backend of two places, both of them taken. */
async function startFull({ admin, nginx }: Openresty) {
  const waiting = await startWaiting();
  await admin.write('PUT', '/v1/upstreams/web', { peers: peersOf([waiting, { max_conns: 2 }]) });
  const get = () => client(`127.0.0.1:${nginx.port}`).send('GET', '/');
  const pending = [get(), get()];
  await until('it is full', () => waiting.waiting.length === 2);
  return { waiting, pending, get };
}

test('the limit holds while 8,000 peers with traffic come and go', async () => {
  const open = await startOpenresty({
    ...options,
    changes: [['reloadless_counters 32m', 'reloadless_counters 1m']],
  });
  const { waiting, pending, get } = await startFull(open);
  for (let i = 0; i < 8_000; i += 1_000) {
    await churn(open, some(i, 1_000, {}));
    // The counters are added up once a second.
    await sleep(1_100);
  }
  assert.ok((await get()).status >= 502, 'a third request is turned away');
  for (const response of waiting.waiting) response.end('ok');
  for (const { status } of await Promise.all(pending)) assert.equal(status, 200);
  waiting.waiting.length = 0;

  const more = Array.from({ length: 4 }, get);
  await until('it is full', () => waiting.waiting.length >= 2);
  await until('two are turned away', async () => {
    const done = await Promise.all(more.map((one) => Promise.race([one, Promise.resolve()])));
    return done.filter((answer) => (answer?.status ?? 0) >= 502).length === 2;
  });
  assert.equal(waiting.waiting.length, 2);
  for (const response of waiting.waiting) response.end('ok');
  await Promise.all(more);
});

const keys = async ({ web }: Openresty) =>
  (await web.get('/counts')).split('\n').filter((key) => key.includes('churn')).length;

test('peers with a limit that are gone leave nothing in the dict', async () => {
  const open = await startOpenresty({
    ...options,
    changes: [['reloadless_inflight 1m', 'reloadless_inflight 128k']],
  });
  const { waiting, pending, get } = await startFull(open);
  for (let i = 0; i < 2_000; i += 200) {
    await churn(open, some(i, 200, { max_conns: 1 }));
    assert.equal(await keys(open), 400);
    await open.admin.write('DELETE', '/v1/upstreams/churn');
    await until('they are forgotten', async () => (await keys(open)) === 0);
  }
  assert.ok((await get()).status >= 502, 'a third request is turned away');
  for (const response of waiting.waiting) response.end('ok');
  for (const { status } of await Promise.all(pending)) assert.equal(status, 200);
  assert.doesNotMatch(open.nginx.errorLog, /is full/);
});

test('in a full dict a peer without a count takes no request, the others do', async () => {
  const open = await startOpenresty({
    ...options,
    changes: [['reloadless_inflight 1m', 'reloadless_inflight 64k']],
  });
  const { waiting, pending, get } = await startFull(open);
  await churn(open, some(0, 1_000, { max_conns: 1 }));
  assert.match(open.nginx.errorLog, /reloadless_inflight is full: enlarge it/);
  assert.ok((await get()).status >= 502, 'a third request is turned away');
  for (const response of waiting.waiting) response.end('ok');
  for (const { status } of await Promise.all(pending)) assert.equal(status, 200);

  const late = await startPeer();
  const put = (fields: object) =>
    open.admin.write('PUT', '/v1/upstreams/web', { peers: peersOf([late, fields]) });
  await put({ max_conns: 1 });
  assert.ok((await get()).status >= 502);
  await put({});
  assert.equal((await get()).status, 200);
  await put({ max_conns: 1 });
  await open.admin.write('DELETE', '/v1/upstreams/churn');
  await until('there is room', async () => (await get()).status === 200);
});

test('without the dict nginx starts, and a limit is refused', async () => {
  const open = await startOpenresty({ workers: 1, changes: [[line, '']] });
  await serve(open);
  const peers = { [open.backend.address]: { max_conns: 1 } };
  const refused = {
    status: 422,
    pointer: `/peers/${open.backend.address}/max_conns`,
    detail: /max_conns is 1: expected 0, since nginx.conf lacks .* reloadless_inflight/,
  };
  await assertRefused(
    open,
    () => open.admin.send('PATCH', '/v1/upstreams/web', { peers }),
    refused,
  );
  await open.admin.write('PATCH', '/v1/upstreams/web', {
    peers: { [open.backend.address]: { max_conns: 0 } },
  });
});
