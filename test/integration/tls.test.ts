// Proves TLS to the peers: the right name is asked for, certificates are
// verified, and a peer with a wrong one has failed and is left for another.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { TLSSocket } from 'node:tls';
import { temporaryFolder } from '../stack/folder.ts';
import { until } from '../stack/process.ts';
import { close, listen } from '../stack/server.ts';
import { startPeer } from './backends.ts';
import { peerStatus, startOpenresty } from './openresty.ts';

const { folder, remove } = temporaryFolder();
after(remove);

/** Makes `name.pem` and `name.key`: an authority, or what the authority `ca` gives a server. */
function certify(name: string, ca?: string, host = ''): string {
  const file = (suffix: string) => join(folder, suffix);
  const by = ['-CA', file(`${ca}.pem`), '-CAkey', file(`${ca}.key`)];
  const of = ['-addext', `subjectAltName=${host}`, '-addext', 'basicConstraints=CA:FALSE'];
  execFileSync(
    'openssl',
    [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-days', '2', '-subj', `/CN=${name}`],
      ...['-keyout', file(`${name}.key`), '-out', file(`${name}.pem`)],
      ...(ca === undefined ? [] : [...by, ...of]),
    ],
    { stdio: 'pipe' },
  );
  return name;
}

certify('ca');
certify('stranger');
const right = certify('right', 'ca', 'DNS:web.internal,DNS:two.internal');
const misnamed = certify('misnamed', 'ca', 'DNS:elsewhere.internal');
const untrusted = certify('untrusted', 'stranger', 'DNS:web.internal');

interface Secure {
  address: string;
  /** TLS connections that came up. */
  handshakes: number;
  /** The names that requests came under, in order. */
  names: unknown[];
}

async function startSecure(certificate: string): Promise<Secure> {
  const secure: Secure = { address: '', handshakes: 0, names: [] };
  const server = createServer(
    {
      cert: readFileSync(join(folder, `${certificate}.pem`)),
      key: readFileSync(join(folder, `${certificate}.key`)),
    },
    (request, response) => {
      secure.names.push((request.socket as TLSSocket & { servername?: string }).servername);
      response.end(certificate);
    },
  );
  server.on('secureConnection', () => {
    secure.handshakes += 1;
  });
  secure.address = await listen(server);
  after(() => close(server));
  return secure;
}

const tls = (upstream: string, name: string) => `
        proxy_pass https://${upstream};
        proxy_ssl_server_name on;
        proxy_ssl_name ${name};
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate ${join(folder, 'ca.pem')};`;

const { admin, web } = await startOpenresty({
  workers: 1,
  locations: `
    location /tls { ${tls('web', 'web.internal')} }
    location /two { ${tls('two', 'two.internal')} }`,
  servers: `
    upstream two {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("web") }
        keepalive 64;
    }`,
});

const put = (settings: object, ...peers: { address: string }[]) =>
  admin.write('PUT', '/v1/upstreams/web', {
    ...settings,
    peers: Object.fromEntries(peers.map(({ address }) => [address, {}])),
  });

test('a verified peer serves, under its name, on connections that are kept', async () => {
  const peer = await startSecure(right);
  await put({}, peer);
  for (let i = 0; i < 50; i += 1) assert.equal(await web.get('/tls'), 'right');
  assert.equal(peer.handshakes, 1);
  assert.deepEqual(peer.names, Array(50).fill('web.internal'));
});

for (const certificate of [misnamed, untrusted]) {
  test(`a peer whose certificate is ${certificate} is 502, and a failure`, async () => {
    const peer = await startSecure(certificate);
    await put({ max_fails: 0 }, peer);
    for (let i = 0; i < 3; i += 1) assert.equal((await web.send('GET', '/tls')).status, 502);
    assert.deepEqual(peer.names, []);
    await until('the failures', async () => (await peerStatus(admin, peer)).failures === 3);
  });

  test(`a right peer serves instead of one that is ${certificate}`, async () => {
    const [good, bad] = [await startSecure(right), await startSecure(certificate)];
    await put({ fail_timeout: 600 }, good, bad);
    for (let i = 0; i < 20; i += 1) {
      const { status, body } = await web.send(i % 2 ? 'GET' : 'POST', '/tls');
      assert.deepEqual([status, body], [200, 'right']);
    }
    assert.deepEqual(bad.names, []);
    const { failures } = await until('it is ejected', async () => {
      const status = await peerStatus(admin, bad);
      return status.state === 'ejected' ? status : undefined;
    });
    assert.equal(failures, 1);
    assert.equal((await peerStatus(admin, good)).failures, 0);
  });
}

test('a peer that does not speak TLS is left for one that does', async () => {
  const good = await startSecure(right);
  const plain = await startPeer();
  await put({ max_fails: 0 }, good, plain);
  for (let i = 0; i < 6; i += 1) assert.equal(await web.get('/tls'), 'right');
  await until('the failures', async () => (await peerStatus(admin, plain)).failures > 0);
});

test('two names on one address have a block and so connections each', async () => {
  const peer = await startSecure(right);
  await put({}, peer);
  for (let i = 0; i < 10; i += 1) {
    assert.equal(await web.get('/tls'), 'right');
    assert.equal(await web.get('/two'), 'right');
  }
  assert.deepEqual(
    peer.names,
    Array.from({ length: 20 }, (_, i) => (i % 2 ? 'two.internal' : 'web.internal')),
  );
  assert.equal(peer.handshakes, 2);
});
