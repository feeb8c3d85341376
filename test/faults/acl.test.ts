// Consul with ACLs: a token without rights gets 200 and an empty list.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { reloadless } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { peers, type Stack, startStack } from '../stack/stack.ts';

const master = '00000000-0000-4000-8000-000000000001';
let stack: Stack;

before(async () => {
  const acl = { enabled: true, default_policy: 'deny', tokens: { master, agent: master } };
  stack = await startStack({}, { config: { acl }, token: master });
  await register(1);
});
after(() => stack.stop());

async function register(n: number): Promise<void> {
  const id = `web-${n}`;
  await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port: 1000 + n });
}

async function tokenFor(...rules: string[]): Promise<string> {
  const name = `p${Math.random()}`.replace('.', '');
  const put = (path: string, json: object) => stack.consul.http.put(path, { json }).json();
  await put('acl/policy', { Name: name, Rules: rules.join('\n') });
  const token = (await put('acl/token', { Policies: [{ Name: name }] })) as { SecretID: string };
  return token.SecretID;
}

const nodes = 'node_prefix "" { policy = "read" }';
const services = 'service_prefix "" { policy = "read" }';

test('a token that loses its rights removes nothing, and one put in its place is used', async (t) => {
  const file = join(stack.folder, 'token');
  writeFileSync(file, await tokenFor(nodes, services));
  const config = stack.configure({
    consul: { token_file: file },
    upstreams: { web: { hold_empty: 0 } },
  });
  const agent = stack.agent('-c', config);
  t.after(() => agent.stop());
  await until('the peer', async () => (await peers(stack.nginx, 'web'))?.length === 1);

  const weak = await tokenFor(services);
  writeFileSync(file, `${weak}\n`);
  agent.hup();
  // The query that is held goes on with the old token; the one after it has the new.
  await register(2);
  await until('both peers', async () => (await peers(stack.nginx, 'web'))?.length === 2);
  await register(3);
  await until('the agent says it', () => agent.messages.some((m) => m.includes('sees no nodes')));
  assert.equal((await peers(stack.nginx, 'web'))?.length, 2);

  writeFileSync(file, await tokenFor(nodes, services));
  // The token goes: the next request is a 403, and the file is read again without a signal.
  const { AccessorID } = (await stack.consul
    .http('acl/token/self', { headers: { 'x-consul-token': weak } })
    .json()) as { AccessorID: string };
  await stack.consul.http.delete(`acl/token/${AccessorID}`);
  await until('all peers', async () => (await peers(stack.nginx, 'web'))?.length === 3);
  assert(!agent.log.includes(weak), 'a token in the log');
});

test('sync with a token without rights changes nothing and says why', async () => {
  const service = ['--service', 'web'];
  const good = { CONSUL_HTTP_TOKEN: await tokenFor(nodes, services) };
  assert.equal((await reloadless(['sync', ...stack.flags, ...service], good)).code, 0);
  const before = await peers(stack.nginx, 'web');
  assert(before !== undefined && before.length > 0);
  for (const env of [{}, { CONSUL_HTTP_TOKEN: await tokenFor(services) }]) {
    const result = await reloadless(['sync', ...stack.flags, ...service], env);
    assert.equal(result.code, 1);
    assert.match(result.stderr, /^reloadless: Consul at .*sees no nodes.*\n$/);
    assert.deepEqual(await peers(stack.nginx, 'web'), before);
  }
});

test('an unknown token is refused by Consul, and named by its status only', async () => {
  const secret = '00000000-0000-4000-8000-00000000dead';
  const env = { CONSUL_HTTP_TOKEN: secret };
  const result = await reloadless(['sync', ...stack.flags, '--service', 'web'], env);
  assert.equal(result.code, 1);
  assert.match(result.stderr, /^reloadless: Consul at .*: 403 ACL not found\n$/);
});
