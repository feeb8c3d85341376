// Proves who may use the admin API: tokens, listeners, other sites' pages; and
// which addresses may never become a peer.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { temporaryFolder } from '../stack/folder.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import {
  assertProblem,
  assertRefused,
  type Client,
  client,
  read,
  serve,
  startOpenresty,
} from './openresty.ts';

const all = '/v1/upstreams';
const web = '/v1/upstreams/web';
const { folder, remove } = temporaryFolder();
test.after(remove);

/** A server of the admin API on these addresses. */
const adminServer = (listen: string[]) => `server {
  ${listen.map((on) => `listen ${on};`).join(' ')}
  location / { content_by_lua_block { require("reloadless").admin() } }
}`;

/** An address of this machine that others can reach. */
const reachable = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ internal, family }) => !internal && family === 'IPv4')?.address;

const port = await freePort();
const socket = join(folder, 'admin.sock');
const listeners = [`127.0.0.5:${port}`, `[::1]:${port}`, `unix:${socket}`];
const both = await freePort();
const open = await startOpenresty({
  servers: [
    adminServer(listeners),
    adminServer([`[::]:${both} ipv6only=off`]),
    reachable === undefined ? '' : adminServer([`${reachable}:${port}`]),
  ].join('\n'),
});
const { admin } = open;
await serve(open);

/** What a person with curl, the agent, and a browser might send. */
async function assertOpen(to: Client, headers = {}): Promise<void> {
  for (const path of [all, web, '/v1/status']) {
    assert.equal((await to.send('GET', path, undefined, headers)).status, 200);
  }
  assert.equal((await to.send('PATCH', web, {}, headers)).status, 200);
}

async function assertClosed(
  to: Client,
  headers: Record<string, string | string[] | undefined>,
  expected: { status: number; detail: RegExp },
): Promise<void> {
  for (const [method, path, body] of [
    ['GET', all, undefined],
    ['GET', '/v1/status', undefined],
    ['GET', '/ghost', undefined],
    ['PATCH', web, { peers: null }],
    ['PUT', all, { upstreams: {} }],
    ['PUT', all, '{'],
    ['DELETE', web, undefined],
    ['POST', all, undefined],
  ] as const) {
    await assertRefused(open, () => to.send(method, path, body, headers), expected);
  }
}

const bare = { authorization: undefined };

test('each TCP address needs the token; it opens them all', async () => {
  const tcp = [
    ...[`127.0.0.5:${port}`, `[::1]:${port}`, `127.0.0.1:${both}`, `[::1]:${both}`],
    ...(reachable === undefined ? [] : [`${reachable}:${port}`, `${reachable}:${both}`]),
  ];
  for (const to of tcp) {
    await assertClosed(client(to), bare, { status: 401, detail: /bearer token is required/ });
    await assertOpen(client(to));
  }
});

test('where there is a token, a unix socket needs it too', async () => {
  const to = client(`unix:${socket}`);
  await assertClosed(to, bare, { status: 401, detail: /bearer token is required/ });
  await assertOpen(to);
});

test('without token_file only a unix socket is open, and the log says so once', async () => {
  const other = join(folder, 'other.sock');
  const shut = await freePort();
  const lone = await startOpenresty({
    tokenFile: null,
    servers: adminServer([`unix:${other}`, `127.0.0.1:${shut}`, `[::1]:${shut}`]),
  });
  const to = client(`unix:${other}`);
  const body = { upstreams: { web: { peers: { [lone.backend.address]: {} } } } };
  await to.write('PUT', all, body, bare);
  const { etag } = (await to.send('GET', all, undefined, bare)).headers;
  for (const asked of [lone.admin, client(`127.0.0.1:${shut}`), client(`[::1]:${shut}`)]) {
    for (const authorization of [undefined, 'Bearer', 'Bearer x', 'Bearer nil']) {
      for (const [method, path] of [
        ['GET', all],
        ['GET', '/v1/status'],
        ['DELETE', web],
        ['GET', '/ghost'],
      ] as const) {
        const answer = await asked.send(method, path, undefined, { authorization });
        assert.equal(answer.status, 403);
        assertProblem(answer, { detail: /want of a token: see nginx's error log/ });
      }
    }
  }
  assert.equal((await to.send('GET', all, undefined, bare)).headers.etag, etag);
  const said = lone.nginx.errorLog.match(/.*refuses everything on TCP: put a token into a file.*/g);
  assert.equal(said?.length, 1, `${said}`);
  assert.match(said?.[0] ?? '', /\[error\].*init\{ token_file = /);
});

test("requests of another site's page are refused", async () => {
  const host = `127.0.0.1:${open.nginx.adminPort}`;
  for (const headers of [
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': ['none', 'cross-site'] },
    { origin: 'https://evil.example' },
    { origin: `https://evil.example/${host}` },
    { origin: `http://${host}.evil.example` },
    { origin: 'null' },
    { origin: '' },
    { origin: [`http://${host}`, 'https://evil.example'] },
    { origin: ['https://evil.example', `http://${host}`] },
  ]) {
    await assertClosed(admin, headers, { status: 403, detail: /cross-site/ });
  }
  await assertOpen(admin, { 'sec-fetch-site': 'same-origin', origin: `http://${host}` });
  await assertOpen(admin, { 'sec-fetch-site': 'none' });
});

test('with a token nothing goes without it, on any address', async () => {
  const token = 'c2VjcmV0LXRva2Vu.~+/=';
  const file = join(folder, 'token');
  const away = `${reachable}:${await freePort()}`;
  writeFileSync(file, `${token}\n`);
  const guarded = await startOpenresty({
    tokenFile: file,
    servers: reachable === undefined ? '' : adminServer([away]),
  });
  const authorization = `Bearer ${token}`;
  const clients = [guarded.admin];
  if (reachable !== undefined) clients.push(client(away));
  for (const to of clients) {
    await assertTaken(to, { authorization });
    await assertTaken(to, { authorization: `bearer  ${token} `, host: 'admin.example' });
    for (const wrong of [
      undefined,
      '',
      token,
      'Bearer',
      'Bearer ',
      `Bearer ${token}x`,
      `Bearer ${token.slice(1)}`,
      `Bearer ${token.toUpperCase()}`,
      `Bearer ${token} ${token}`,
      `Basic ${token}`,
    ]) {
      for (const [method, path] of [
        ['GET', all],
        ['GET', '/v1/status'],
        ['PUT', all],
        ['DELETE', web],
        ['GET', '/ghost'],
      ] as const) {
        const body = method === 'PUT' ? { upstreams: {} } : undefined;
        const answer = await to.send(method, path, body, { authorization: wrong });
        assert.equal(answer.status, 401, `${method} ${path} ${wrong}`);
        assertProblem(answer, { detail: /bearer token/ });
        assert.equal(answer.headers['www-authenticate'], 'Bearer realm="reloadless"');
      }
    }
    const cross = { authorization, origin: 'https://evil.example' };
    assert.equal((await to.send('GET', all, undefined, cross)).status, 403);
  }

  async function assertTaken(to: Client, headers: Record<string, string>): Promise<void> {
    await to.write('PUT', web, { owner: 'x', peers: { '10.0.0.1:80': {} } }, headers);
    const answer = await to.send('GET', web, undefined, headers);
    assert.deepEqual(JSON.parse(answer.body), { owner: 'x', peers: { '10.0.0.1:80': {} } });
  }
});

test('a token file that is missing or empty closes the API, and says why', async () => {
  const file = join(folder, 'no-token');
  const guarded = await startOpenresty({ tokenFile: file });
  async function assertShut(why: RegExp): Promise<void> {
    assert.match(guarded.nginx.errorLog, why);
    const { length } = guarded.nginx.errorLog;
    for (const authorization of [undefined, 'Bearer', 'Bearer x', 'Bearer nil']) {
      const answer = await guarded.admin.send('GET', all, undefined, { authorization });
      assert.equal(answer.status, 403);
      assertProblem(answer, { detail: /^closed for want of a token: see nginx's error log$/ });
    }
    // not with each request
    assert.doesNotMatch(guarded.nginx.errorLog.slice(length), /refuses everything/);
  }
  await assertShut(/refuses everything: token_file: .*no-token: No such file.*: put one there/);
  for (const content of ['', '\n', ' \t\n', 'two words\n']) {
    writeFileSync(file, content);
    const workers = guarded.nginx.workers();
    guarded.nginx.hup();
    await until('new workers', () =>
      workers.every((pid) => !guarded.nginx.workers().includes(pid)),
    );
    await assertShut(/token_file: .*no-token does not hold one token/);
  }
  // and a good one opens it with the next HUP
  writeFileSync(file, 'x');
  guarded.nginx.hup();
  await until('the token is taken', async () => {
    const headers = { authorization: 'Bearer x' };
    return (await guarded.admin.send('GET', all, undefined, headers)).status === 200;
  });
});

test('no peer outside the allowed blocks, but such a one can be taken out', async () => {
  const narrow = await startOpenresty({
    init: 'allow = { "127.0.0.1", "10.1.0.0/16", "fd00::/8" },',
  });
  await serve(narrow);
  for (const [key, fits] of [
    ['10.1.255.255:80', true],
    ['[fdff::1]:80', true],
    ['10.2.0.0:80', false],
    ['10.0.255.255:80', false],
    ['127.0.0.2:80', false],
    ['[fe00::1]:80', false],
    ['[::1]:80', false],
    ['169.254.169.254:80', false],
  ] as const) {
    for (const [method, path] of [
      ['PATCH', web],
      ['PUT', `${all}/other`],
    ] as const) {
      const body = { peers: { [key]: {} } };
      const pointer = `/peers/${key}`;
      if (fits) await narrow.admin.write(method, path, body);
      else {
        const send = () => narrow.admin.send(method, path, body);
        await assertRefused(narrow, send, {
          status: 422,
          pointer,
          detail: /an address within 127.0.0.1, 10.1.0.0\/16, fd00::\/8/,
        });
      }
    }
    await narrow.admin.write('PATCH', web, { peers: { [key]: null } });
  }
});

test('the admin API itself is never a peer', async () => {
  async function assertOwn(to: string, keys: string[], others: string[]): Promise<void> {
    const asked = client(to);
    for (const key of keys) {
      const body = { upstreams: { web: { peers: { [key]: {} } } } };
      for (const method of ['PUT', 'PATCH']) {
        await assertRefused(open, () => asked.send(method, all, body), {
          status: 422,
          pointer: `/upstreams/web/peers/${key}`,
          detail: /other than the admin API/,
        });
      }
    }
    for (const key of others) {
      await asked.write('PATCH', `${all}/web`, { peers: { [key]: { backup: true } } });
      await asked.write('PATCH', `${all}/web`, { peers: { [key]: null } });
    }
  }
  const { adminPort } = open.nginx;
  await assertOwn(
    `127.0.0.1:${adminPort}`,
    [
      `127.0.0.1:${adminPort}`,
      `0.0.0.0:${adminPort}`,
      `127.9.9.9:${adminPort}`,
      `[::1]:${adminPort}`,
    ],
    [`127.0.0.1:${adminPort - 1}`, `10.0.0.1:${adminPort}`],
  );
  await assertOwn(`[::1]:${port}`, [`[::1]:${port}`, `[::]:${port}`, `127.0.0.1:${port}`], []);
  await assertOwn(`127.0.0.1:${both}`, [`127.0.0.1:${both}`, `[::1]:${both}`], []);
});

test('nginx does not start with a wrong address in init, and says which', async () => {
  for (const [options, said] of [
    [{ adminListen: 'localhost:1' }, /init option admin_listen: localhost:1: expected an IPv4/],
    [{ adminListen: '*:1' }, /init option admin_listen: \*:1: expected an IPv4/],
    [
      { init: 'allow = { "10.0.0.0/33" },' },
      /init option allow: 10.0.0.0\/33: expected a block of 0 to 32 bits/,
    ],
  ] as const) {
    await assert.rejects(startOpenresty(options), said);
  }
});

test('that state is what all of this left behind', async () => {
  const { document } = await read(admin);
  assert.deepEqual(Object.keys(document.upstreams), ['web']);
});
