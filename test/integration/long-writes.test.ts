// Proves that a long request lets its worker serve others meanwhile: a write,
// which is whole although its client is gone, and a listing, which ends when its
// client is gone and shows the table as one write has left it; and that no body
// may be larger than what the dict could hold.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { json } from 'node:stream/consumers';
import { after, test } from 'node:test';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { authorization } from '../stack/token.ts';
import {
  assertRefused,
  client,
  type Document,
  deadPeer,
  deadPeers,
  read,
  serve,
  startOpenresty,
} from './openresty.ts';

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
function begin(method: string, body?: unknown, path = all) {
  const headers = { authorization, 'content-type': 'application/json' };
  const sent = request({ port, path, method, headers });
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

for (const upstreams of [one, many]) {
  const count = Object.keys(upstreams).length;
  test(`others are answered meanwhile: the status of ${count} upstreams`, async () => {
    await admin.write('PUT', all, { upstreams });
    const sent = begin('GET', undefined, '/v1/status');
    let answered = 0;
    let done = false;
    const read = once(sent, 'response').then(async ([response]) => {
      const status = await json(response);
      done = true;
      return status as Document;
    });
    while (!done) if (await isInside()) answered += 1;
    assert.ok(answered > 20, `${answered} answers`);
    assert.deepEqual(addresses(await read), addresses({ upstreams }));
  });
}

/** The addresses by upstream. */
function addresses({ upstreams }: { upstreams: Record<string, { peers: object }> }): object {
  return Object.fromEntries(
    Object.entries(upstreams).map(([name, { peers }]) => [name, Object.keys(peers).sort()]),
  );
}

for (const path of ['/v1/status', all]) {
  test(`${path} ends when its client is gone`, async () => {
    await admin.write('PUT', all, { upstreams: many });
    const sent = begin('GET', undefined, path);
    const [response] = await once(sent, 'response');
    // Reads no more: what does not fit into the sockets is still to come.
    response.pause();
    response.on('error', () => {});
    sent.destroy();
    await until('its end', async () => !(await isInside()));
  });
}

test('a listing under writes is the document of its ETag, a status is valid', async () => {
  const first = await admin.write('PUT', all, { upstreams: many });
  const other = client(`127.0.0.1:${port}`);
  const versions: Record<string, number> = {};
  let done = false;
  const writes = (async () => {
    for (let i = 1; !done; i += 1) {
      // Two at once, far apart: a mixture would have one without the other.
      const weight = {
        peers: { [deadPeer(9 * i)]: null, [`10.0.0.1:${(i % 9) + 1}`]: { id: `${i}` } },
      };
      const patch = { upstreams: { 'web-0': weight, 'web-2999': weight } };
      const { etag, version } = await admin.write('PATCH', all, patch);
      versions[etag] = i;
      assert.equal(version, first.version + i);
    }
  })();
  for (let round = 0; round < 15; round += 1) {
    const { headers, body } = await other.send('GET', all);
    const { upstreams } = JSON.parse(body) as Document;
    const newest = (name: string) =>
      Math.max(0, ...Object.values(upstreams[name]?.peers ?? {}).map(({ id }) => Number(id ?? 0)));
    await until(
      'the write is known',
      () => headers.etag === first.etag || String(headers.etag) in versions,
    );
    const expected = headers.etag === first.etag ? 0 : versions[String(headers.etag)];
    assert.deepEqual([newest('web-0'), newest('web-2999')], [expected, expected]);
    const status = JSON.parse(await other.get('/v1/status'));
    assert.equal(Object.keys(status.upstreams).length, 3000);
    assert.ok(status.upstreams['web-2999'].version >= status.upstreams['web-1'].version);
  }
  done = true;
  await writes;
});

test('the status of one upstream, and of none', async () => {
  await admin.write('PUT', all, { upstreams: many });
  const status = JSON.parse(await admin.get('/v1/status?upstream=web-7'));
  assert.deepEqual(
    addresses(status),
    addresses({ upstreams: { 'web-7': many['web-7'] ?? { peers: {} } } }),
  );
  assert.equal((await admin.send('GET', '/v1/status?upstream=none')).status, 404);
});

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
