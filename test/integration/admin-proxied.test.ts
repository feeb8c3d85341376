// Proves that nobody reaches the admin API through the proxy: whatever way one
// of its addresses becomes a peer, and however it is written, a client of the
// proxy gets a refusal and nothing else. What happened to each is printed.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { join } from 'node:path';
import { after, type TestContext, test } from 'node:test';
import { saveSnapshot } from '../../agent/snapshot/file.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx, type NginxOptions } from '../stack/nginx.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { startStack } from '../stack/stack.ts';
import { assertProblem, type Client, client } from './openresty.ts';

const { folder, remove } = temporaryFolder();
after(remove);
const noToken = join(folder, 'empty.token');
writeFileSync(noToken, '');

/** Of a server of the admin API on every address of this machine. */
const everywhere = await freePort();
/** Of one that has a unix socket beside it. */
const beside = await freePort();
const behind = await freePort();
const socket = join(folder, 'admin.sock');

/** This machine's addresses that others can reach. */
const own = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .filter(({ internal, address }) => !internal && !address.startsWith('fe80'))
  .map(({ address, family }) => (family === 'IPv6' ? `[${address}]` : address));

/** As peers, the forms of an address of the admin API that is not known as such yet. */
const forms = [
  ...['127.0.0.1', '127.0.0.2', '0.0.0.0', '[::1]', '[::]', ...own].map(
    (host) => `${host}:${everywhere}`,
  ),
  `127.0.0.1:${beside}`,
];
/** No peer at all: not the canonical form, and a name. */
const notForms = ['[::ffff:127.0.0.1]', '[::ffff:7f00:1]', 'localhost'].map(
  (host) => `${host}:${everywhere}`,
);

const api = 'location / { content_by_lua_block { require("reloadless").admin() } }';

/** `/NAME/PATH` is PATH of the upstream NAME; as much of the client's request as can be goes on. */
const http: NginxOptions['http'] = ({ port }) => `
    upstream any {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
    }
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $http_connection;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    server {
        listen 127.0.0.1:${port};
        location = / { return 204; }
        location ~ ^/http10/([^/]+) {
            set $reloadless_upstream $1;
            access_by_lua_block { require("reloadless").access() }
            rewrite ^/http10/[^/]+(/.*)$ $1 break;
            proxy_pass http://any;
        }
        location ~ ^/([^/]+) {
            set $reloadless_upstream $1;
            access_by_lua_block { require("reloadless").access() }
            rewrite ^/[^/]+(/.*)$ $1 break;
            proxy_pass http://any;
            proxy_http_version 1.1;
        }
    }
    server {
        listen [::]:${everywhere} ipv6only=off;
        set_real_ip_from 0.0.0.0/0;
        set_real_ip_from ::/0;
        real_ip_header X-Forwarded-For;
        ${api}
    }
    server { listen unix:${socket}; listen 127.0.0.1:${beside}; ${api} }
    server {
        listen 127.0.0.1:${behind} proxy_protocol;
        set_real_ip_from 127.0.0.0/8;
        real_ip_header proxy_protocol;
        ${api}
    }`;

const local = { host: 'localhost', authorization: undefined };
const requests: [string, string, unknown?][] = [
  ['GET', '/v1/upstreams'],
  ['HEAD', '/v1/upstreams'],
  ['GET', '/v1/upstreams/u0'],
  ['GET', '/v1/status'],
  ['PATCH', '/v1/upstreams', { upstreams: { u0: null } }],
  ['PUT', '/v1/upstreams', { upstreams: {} }],
  ['DELETE', '/v1/upstreams/u0'],
  ['OPTIONS', '/ghost'],
];
const headers: Record<string, string | undefined>[] = [
  local,
  { ...local, authorization: 'Bearer guess' },
  { ...local, authorization: 'Bearer ' },
  { ...local, 'x-forwarded-for': 'unix:', forwarded: 'for=127.0.0.1;by="unix:"' },
  { ...local, 'sec-fetch-site': 'same-origin', origin: 'http://localhost' },
  { ...local, upgrade: 'websocket', connection: 'Upgrade' },
  { authorization: undefined, host: 'evil.example', origin: 'https://evil.example' },
];

/** Asserts that the proxy's clients get refusals from this upstream. @returns their statuses */
async function assertOnlyRefused(proxy: Client, name: string): Promise<string> {
  const statuses = new Set<number>();
  for (const [method, path, body] of requests) {
    for (const sent of headers) {
      for (const from of [`/${name}`, `/http10/${name}`]) {
        const answer = await proxy.send(method, from + path, body, sent);
        const what = `${method} ${from}${path} ${JSON.stringify(sent)}: ${answer.body}`;
        assert.ok([401, 403].includes(answer.status), `${answer.status} ${what}`);
        statuses.add(answer.status);
        if (method === 'HEAD') continue;
        assertProblem(answer);
        assert.deepEqual(Object.keys(JSON.parse(answer.body)).sort(), [
          'detail',
          'status',
          'title',
          'type',
        ]);
        assert.doesNotMatch(answer.body, /u0|instance|\/reloadless/);
        assert.equal(answer.headers.etag, undefined);
      }
    }
  }
  return [...statuses].join(' or ');
}

async function start(t: TestContext, options: Partial<NginxOptions>): Promise<Nginx> {
  const temporary = temporaryFolder();
  const nginx = await Nginx.start(temporary.folder, { http, ...options });
  t.after(async () => {
    await nginx.stop();
    temporary.remove();
  });
  return nginx;
}

/** An upstream for each address. */
function documentOf(addresses: string[]) {
  const each = addresses.map((address, i) => [`u${i}`, { peers: { [address]: {} } }]);
  return { upstreams: Object.fromEntries(each) };
}

/** How an upstream with one peer may be pushed. */
const pushes = {
  'PATCH of all': (admin, name, upstream) =>
    admin.send('PATCH', '/v1/upstreams', { upstreams: { [name]: upstream } }),
  'PUT of all': async (admin, name, upstream) => {
    const { upstreams } = JSON.parse(await admin.get('/v1/upstreams'));
    return admin.send('PUT', '/v1/upstreams', { upstreams: { ...upstreams, [name]: upstream } });
  },
  'PUT of one': (admin, name, upstream) => admin.send('PUT', `/v1/upstreams/${name}`, upstream),
  'PATCH of one': async (admin, name, upstream) => {
    await admin.write('PUT', `/v1/upstreams/${name}`, {});
    return admin.send('PATCH', `/v1/upstreams/${name}`, upstream);
  },
} satisfies Record<
  string,
  (admin: Client, name: string, upstream: object) => ReturnType<Client['send']>
>;

for (const [kind, options, to] of [
  ['with a token', {}, (nginx: Nginx) => `127.0.0.1:${nginx.adminPort}`],
  ['without a token, over a unix socket', { tokenFile: null }, () => `unix:${socket}`],
] as const) {
  for (const [way, push] of Object.entries(pushes)) {
    test(`${way} ${kind}: a client of the proxy is refused`, async (t) => {
      const nginx = await start(t, options);
      const admin = client(to(nginx));
      const proxy = client(`127.0.0.1:${nginx.port}`);
      for (const [i, address] of forms.entries()) {
        const answer = await push(admin, `u${i}`, { peers: { [address]: {} } });
        assert.equal(answer.status, 200, answer.body);
      }
      for (const address of notForms) {
        const answer = await push(admin, 'never', { peers: { [address]: {} } });
        assert.equal(answer.status, 422);
        t.diagnostic(`${way} ${kind} of ${address}: 422`);
      }
      const { etag } = (await admin.send('GET', '/v1/upstreams')).headers;
      for (const [i, address] of forms.entries()) {
        const status = await assertOnlyRefused(proxy, `u${i}`);
        t.diagnostic(`${way} ${kind} of ${address}: taken; the proxy's client gets ${status}`);
      }
      assert.equal((await admin.send('GET', '/v1/upstreams')).headers.etag, etag);
      // Having been asked there, the admin API knows them as its own.
      for (const [i, address] of forms.entries()) {
        const answer = await push(admin, `u${i}`, { peers: { [address]: { weight: 2 } } });
        assert.equal(answer.status, 422, address);
        assert.match(answer.body, /other than the admin API itself/);
      }
    });
  }
}

for (const [kind, options] of [
  ['with a token', {}],
  ['without a token', { tokenFile: null }],
  ['with an empty token file', { tokenFile: noToken }],
  ['with a missing token file', { tokenFile: join(folder, 'missing') }],
] as const) {
  test(`a snapshot ${kind}: a client of the proxy is refused`, async (t) => {
    const nginx = await start(t, options);
    const proxy = client(`127.0.0.1:${nginx.port}`);
    const restart = async (addresses: string[]) => {
      await nginx.stop();
      const document = documentOf(addresses);
      await saveSnapshot(nginx.snapshot, { savedAt: new Date(), document });
      await nginx.up();
      proxy.close();
    };
    await restart(forms);
    for (const [i, address] of forms.entries()) {
      const status = await assertOnlyRefused(proxy, `u${i}`);
      t.diagnostic(`a snapshot ${kind} of ${address}: taken; the proxy's client gets ${status}`);
    }
    // What is no peer, or known as the admin API's own, does not serve.
    const known = ['127.0.0.1', '127.9.9.9', '0.0.0.0', '[::1]', '[::]'].map(
      (host) => `${host}:${nginx.adminPort}`,
    );
    for (const address of [...notForms, ...known]) {
      await restart([address]);
      const { status } = await proxy.send('GET', '/u0/v1/upstreams', undefined, local);
      assert.equal(status, 503, address);
      t.diagnostic(`a snapshot ${kind} of ${address}: left out`);
    }
  });
}

test('registered in Consul and pushed by the agent: a client of the proxy is refused', async (t) => {
  const stack = await startStack({ http });
  t.after(() => stack.stop());
  const hosts = ['127.0.0.1', '127.0.0.2', '::1', '::ffff:127.0.0.1', 'localhost', ...own];
  const services = hosts.map((_, i) => `u${i}`);
  for (const [i, host] of hosts.entries()) {
    const address = host.replace(/^\[(.*)\]$/, '$1');
    await stack.consul.register({ name: `u${i}`, id: `u${i}`, address, port: everywhere });
  }
  stack.agent(...services.flatMap((name) => ['--service', name]));
  const admin = client(`127.0.0.1:${stack.nginx.adminPort}`);
  const { upstreams } = await until('all are pushed', async () => {
    const document = JSON.parse(await admin.get('/v1/upstreams'));
    return Object.keys(document.upstreams).length === services.length && document;
  });
  const proxy = client(`127.0.0.1:${stack.nginx.port}`);
  for (const [i, host] of hosts.entries()) {
    const [address] = Object.keys(upstreams[`u${i}`].peers);
    const status =
      address === undefined
        ? (await proxy.send('GET', `/u${i}/v1/upstreams`, undefined, local)).status
        : await assertOnlyRefused(proxy, `u${i}`);
    assert.notEqual(status, 200);
    t.diagnostic(`Consul has ${host}: peer ${address}; the proxy's client gets ${status}`);
  }
});

test('the address of the include is known from the start, in each form', async (t) => {
  const nginx = await start(t, {});
  const other = client(`127.0.0.1:${beside}`);
  for (const host of ['127.0.0.1', '127.9.9.9', '0.0.0.0', '[::1]', '[::]']) {
    const address = `${host}:${nginx.adminPort}`;
    const body = { upstreams: { web: { peers: { '10.0.0.1:80': {}, [address]: {} } } } };
    for (const method of ['PUT', 'PATCH']) {
      const answer = await other.send(method, '/v1/upstreams', body);
      assert.equal(answer.status, 422, answer.body);
      assertProblem(answer, {
        pointer: `/upstreams/web/peers/${address}`,
        detail: /other than the admin API itself/,
      });
    }
  }
  await other.write('PUT', '/v1/upstreams/web', { peers: { [`10.0.0.1:${nginx.adminPort}`]: {} } });
});

test('no PROXY protocol makes a TCP address a unix socket', async (t) => {
  await start(t, { tokenFile: null });
  const v2 = Buffer.concat([
    Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1'),
    // version 2, PROXY; AF_UNIX, STREAM; 216 bytes of two paths
    Buffer.from([0x21, 0x31, 0, 216]),
    Buffer.concat([Buffer.from(`${socket}\0`), Buffer.alloc(216)]).subarray(0, 216),
  ]);
  for (const header of [
    Buffer.from('PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n'),
    Buffer.from('PROXY UNKNOWN\r\n'),
    v2,
  ]) {
    const connection = connect(behind, '127.0.0.1');
    connection.write(header);
    connection.write('GET /v1/upstreams HTTP/1.0\r\nHost: localhost\r\n\r\n');
    let answer = '';
    connection.on('data', (chunk) => {
      answer += chunk;
    });
    await once(connection, 'close');
    assert.match(answer, /^HTTP\/1\.1 403 Forbidden\r\n/, header.toString('latin1'));
  }
});

test('who knows the token is let in, at each address', async (t) => {
  await start(t, {});
  for (const host of ['127.0.0.1', '127.0.0.2', '[::1]', ...own]) {
    const to = client(`${host}:${everywhere}`);
    await to.get('/v1/upstreams');
    const bare = await to.send('GET', '/v1/upstreams', undefined, { authorization: undefined });
    assert.equal(bare.status, 401);
  }
});
