// Consul behind TLS and behind a unix socket, named by its own environment variables.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { reloadless } from '../stack/agent.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { findConsul } from '../stack/install.mjs';
import { freePort } from '../stack/ports.ts';
import { type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
let https = 0;
const { folder, remove } = temporaryFolder();
/** What a URL would take for its own, or write in another way. */
const odd = join(folder, 'con sul:8500 #1?x=%41&é@[::1]+日.sock');
const socket = join(folder, 'consul.sock');
const ca = join(folder, 'consul-agent-ca.pem');
const pair = (kind: string) => [`dc1-${kind}-consul-0.pem`, `dc1-${kind}-consul-0-key.pem`];

before(async () => {
  const tls = (...args: string[]) =>
    execFileSync(findConsul() ?? '', ['tls', ...args], { cwd: folder });
  mkdirSync(folder, { recursive: true });
  tls('ca', 'create');
  tls('cert', 'create', '-server', '-additional-ipaddress', '::1');
  tls('cert', 'create', '-client');
  https = await freePort();
  const [cert, key] = pair('server').map((file) => join(folder, file));
  const config = {
    addresses: { http: `127.0.0.1 ::1 unix://${socket}`, https: '127.0.0.1 ::1' },
    ports: { https },
    ca_file: ca,
    cert_file: cert,
    key_file: key,
    verify_incoming_https: true,
  };
  stack = await startStack({}, { config });
  // Consul's own list of addresses is parted by spaces.
  symlinkSync(socket, odd);
  await stack.consul.register({ name: 'web', id: 'web-1', address: '127.0.0.1', port: 1001 });
});
after(async () => {
  await stack.stop();
  remove();
});

function dryRun(env: NodeJS.ProcessEnv) {
  const target = ['--openresty', stack.nginx.admin];
  return reloadless(['sync', '--dry-run', ...target, '--service', 'web'], env);
}

test('a unix socket at any path', async () => {
  const { code, stdout, stderr } = await dryRun({ CONSUL_HTTP_ADDR: `unix://${odd}` });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /"127\.0\.0\.1:1001"/);
  const missing = await dryRun({ CONSUL_HTTP_ADDR: `unix://${odd}.not` });
  const error = `Consul at unix:${odd}.not: connect ENOENT ${odd}.not\n`;
  assert.deepEqual([missing.code, missing.stderr], [1, `reloadless: ${error}`]);
});

test('an IPv6 address', async () => {
  const { port } = new URL(stack.consul.address);
  const { code, stdout, stderr } = await dryRun({ CONSUL_HTTP_ADDR: `http://[::1]:${port}` });
  assert.equal(code, 0, stderr);
  assert.match(stdout, /"127\.0\.0\.1:1001"/);
});

test('https with a client certificate', async () => {
  const [cert, key] = pair('client').map((file) => join(folder, file));
  const env = {
    CONSUL_HTTP_ADDR: `127.0.0.1:${https}`,
    CONSUL_HTTP_SSL: 'true',
    CONSUL_CACERT: ca,
    CONSUL_CLIENT_CERT: cert,
    CONSUL_CLIENT_KEY: key,
  };
  const good = await dryRun(env);
  assert.deepEqual([good.code, good.stderr.includes('would be sent')], [0, true]);
  assert.match(good.stdout, /"127\.0\.0\.1:1001"/);

  const v6 = await dryRun({ ...env, CONSUL_HTTP_ADDR: `[::1]:${https}` });
  assert.deepEqual([v6.code, v6.stdout], [0, good.stdout], v6.stderr);

  const unknown = await dryRun({ ...env, CONSUL_CACERT: '' });
  assert.equal(unknown.code, 1);
  assert.match(unknown.stderr, /^reloadless: Consul at https:.*certificate.*\n$/);
  assert.equal(
    (await dryRun({ ...env, CONSUL_CACERT: '', CONSUL_HTTP_SSL_VERIFY: 'false' })).code,
    0,
  );
  const missing = await dryRun({ ...env, CONSUL_CACERT: '/no/such' });
  assert.equal(missing.code, 2);
  assert.match(missing.stderr, /^reloadless: consul\.tls: .*\/no\/such.*\n$/);
});
