// Consul's servers have ACLs, the agent of this machine does not know it: it says
// that ACLs are disabled, and passes on what the servers let through.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';

const master = '00000000-0000-4000-8000-000000000001';
const { folder, remove } = temporaryFolder();
let server: Consul;
let agent: Consul;

before(async () => {
  const acl = { enabled: true, default_policy: 'deny', tokens: { master, agent: master } };
  server = await Consul.start(join(folder, 'server'), { acl }, master);
  await server.register({ name: 'web', id: 'a', address: '127.0.0.1', port: 1001 });
  const self: { DebugConfig: { SerfPortLAN: number } } = await server.http('agent/self').json();
  const extra = {
    server: false,
    bootstrap_expect: undefined,
    node_name: 'client',
    retry_join: [`127.0.0.1:${self.DebugConfig.SerfPortLAN}`],
    retry_interval: '1s',
  };
  agent = await Consul.start(join(folder, 'client'), extra, master);
});
after(async () => {
  await agent?.stop('SIGKILL');
  await server?.stop('SIGKILL');
  remove();
});

const web = { resource: 'service', name: 'web' } as const;
const local = { resource: 'node', name: 'local' } as const;
const anyNode = { resource: 'node', name: '' } as const;

const tokens: [rules: string | undefined, denied: object[]][] = [
  [undefined, [web, local, anyNode]],
  ['service "web" { policy = "read" }', [local, anyNode]],
  ['service_prefix "" { policy = "read" } node "local" { policy = "read" }', [anyNode]],
  ['service "api" { policy = "read" } node_prefix "" { policy = "read" }', [web]],
  ['service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }', []],
];

for (const [rules, denied] of tokens) {
  test(`what is not allowed is known from the servers: ${rules ?? 'no token'}`, async (t) => {
    const token = rules === undefined ? '' : await tokenWith(rules);
    const env = { CONSUL_HTTP_TOKEN: token };
    const { consul } = resolveConfig({ service: ['web'], consul: agent.address }, env, {});
    const client = createConsulClient(consul);
    t.after(client.close);
    const { signal } = new AbortController();
    assert.deepEqual(await client.denied([web, local, anyNode], signal), denied);
    const query = { service: 'web', filter: undefined, consistency: 'consistent' } as const;
    const { entries } = await client.health(query, signal);
    const isSeen = !denied.includes(web) && !denied.includes(local);
    assert.equal(entries.length, isSeen ? 1 : 0);
  });
}

test('so are keys, and the prefix of keys', async (t) => {
  await server.store('a/b', '');
  const keys = ['a/', 'a/b', 'c'].map((name) => ({ resource: 'key' as const, name }));
  for (const [rules, denied] of [
    ['key_prefix "a/" { policy = "read" }', ['c']],
    ['key_prefix "a/" { policy = "read" } key "a/b" { policy = "deny" }', ['a/b', 'c']],
    ['key "a/b" { policy = "read" } key_prefix "c" { policy = "read" }', ['a/']],
  ] as const) {
    const env = { CONSUL_HTTP_TOKEN: await tokenWith(rules) };
    const { consul } = resolveConfig({ service: ['web'], consul: agent.address }, env, {});
    const client = createConsulClient(consul);
    t.after(client.close);
    const { signal } = new AbortController();
    const found = (await client.denied(keys, signal)).map(({ name }) => name);
    assert.deepEqual(found, denied, rules);
  }
});

test('a token that the servers do not know is an error, and not a right', async (t) => {
  const env = { CONSUL_HTTP_TOKEN: '00000000-0000-4000-8000-00000000dead' };
  const { consul } = resolveConfig({ service: ['web'], consul: agent.address }, env, {});
  const client = createConsulClient(consul);
  t.after(client.close);
  await assert.rejects(client.denied([web], new AbortController().signal), {
    code: 'consul/refused',
  });
});

async function tokenWith(Rules: string): Promise<string> {
  const Name = `p${Math.random()}`.replace('.', '');
  await server.http.put('acl/policy', { json: { Name, Rules } });
  const json = { Policies: [{ Name }] };
  const token: { SecretID: string } = await server.http.put('acl/token', { json }).json();
  return token.SecretID;
}
