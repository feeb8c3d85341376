// Proves that a long write lets its worker serve others meanwhile, that it is
// whole although its client is gone, and that no body may be larger than what
// the dict could hold.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { after, test } from 'node:test';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { authorization } from '../stack/token.ts';
import { assertRefused, deadPeers, read, serve, startOpenresty } from './openresty.ts';

const port = await freePort();
const open = await startOpenresty({
  workers: 1,
  locations: `
    # how many requests the server below is answering
    location = /inside { content_by_lua_block { ngx.print(inside or 0) } }`,
  servers: `
    server {
        listen 127.0.0.1:${port};
        lua_check_client_abort on;
        location / {
            content_by_lua_block {
                ngx.req.read_body()
                inside = (inside or 0) + 1
                require("reloadless").admin()
                inside = inside - 1
            }
        }
    }`,
});
const { admin, web } = open;
const all = '/v1/upstreams';

/** Sends a request; whoever destroys it cuts it short. */
function begin(method: string, body?: unknown) {
  const headers = { authorization, 'content-type': 'application/json' };
  const sent = request({ port, path: all, method, headers });
  after(() => sent.destroy());
  sent.end(body === undefined ? undefined : JSON.stringify(body));
  return sent;
}

async function isInside(): Promise<boolean> {
  return (await web.get('/inside')) !== '0';
}

const one = { web: { peers: deadPeers(30_000) } };
const entries = Object.entries(deadPeers(30_000));
const many = Object.fromEntries(
  Array.from({ length: 3000 }, (_, i) => [
    `web-${i}`,
    { peers: Object.fromEntries(entries.slice(10 * i, 10 * i + 10)) },
  ]),
);

for (const [name, method, upstreams] of [
  ['an upstream put', 'PUT', one],
  ['the same again', 'PUT', one],
  ['upstreams put', 'PUT', many],
  ['upstreams read', 'GET', many],
  ['upstreams patched', 'PATCH', many],
  ['upstreams gone', 'PUT', {}],
] as const) {
  test(`others are answered meanwhile: ${name}`, async () => {
    const sent = begin(method, method === 'GET' ? undefined : { upstreams });
    let answered = 0;
    let done = false;
    const response = once(sent, 'response').finally(() => (done = true));
    while (!done) if (await isInside()) answered += 1;
    assert.equal((await response)[0].statusCode, 200);
    assert.ok(answered > 3, `${answered} answers`);
    assert.deepEqual((await read(admin)).document.upstreams, upstreams);
  });
}

test('a write whose client is gone goes on, and gives the lock back', async () => {
  await admin.write('PUT', all, { upstreams: {} });
  const sent = begin('PUT', { upstreams: one });
  sent.on('error', () => {});
  await until('the write', isInside);
  sent.destroy();
  await until('its end', async () => !(await isInside()));
  assert.deepEqual((await read(admin)).document.upstreams, one);
  await admin.write('PUT', all, { upstreams: {} });
});

test('413: a body larger than the dict, or than 1 MiB where that is more', async () => {
  for (const [dict, most] of [
    ['2m', 2 << 20],
    ['256k', 1 << 20],
  ] as const) {
    const small = await startOpenresty({ dict });
    await serve(small);
    const { document } = await read(small.admin);
    const text = JSON.stringify(document);
    await small.admin.write('PUT', all, text.padEnd(most));
    await assertRefused(small, () => small.admin.send('PUT', all, text.padEnd(most + 1)), {
      status: 413,
    });
  }
});
