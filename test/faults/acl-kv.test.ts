// KV of a Consul with ACLs: to a token without rights a prefix looks empty.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { until } from '../stack/process.ts';
import { peers, startStack } from '../stack/stack.ts';

const master = '00000000-0000-4000-8000-000000000001';
const prefix = 'upstreams/web/';

test('a token that may not read the keys any more empties nothing', async (t) => {
  const acl = { enabled: true, default_policy: 'deny', tokens: { master, agent: master } };
  const stack = await startStack({}, { config: { acl }, token: master });
  t.after(() => stack.stop());
  const { consul, nginx } = stack;
  const put = (path: string, json: object) => consul.http.put(path, { json }).json();
  const policy = (rules: string) => ({ Name: 'keys', Rules: rules });
  const may = 'key_prefix "upstreams/" { policy = "read" }';
  const { ID } = (await put('acl/policy', policy(may))) as { ID: string };
  const token = (await put('acl/token', { Policies: [{ Name: 'keys' }] })) as { SecretID: string };
  const file = join(stack.folder, 'token');
  writeFileSync(file, token.SecretID);

  await consul.store(`${prefix}127.0.0.1:1001`, '');
  await consul.store(`${prefix}127.0.0.1:1002`, '');
  await consul.store('upstreams/api/127.0.0.1:1003', '');
  const upstreams = {
    web: { source: 'kv', hold_empty: 1 },
    api: { source: 'kv', hold_empty: 1 },
  };
  const agent = stack.agent(
    '-c',
    stack.configure({ consul: { token_file: file, wait: '1s' }, upstreams }),
  );
  const has = (count: number) =>
    until(`web has ${count}`, async () => (await peers(nginx, 'web'))?.length === count);
  await has(2);

  const denied: [rules: string, message: RegExp][] = [
    [
      'key_prefix "upstreams/api/" { policy = "read" }',
      /may not read key "upstreams\/web\/" and 2 more/,
    ],
    [
      `${may} key "${prefix}127.0.0.1:1001" { policy = "deny" }
       key "${prefix}127.0.0.1:1002" { policy = "deny" }`,
      /may not read key "upstreams\/web\/127\.0\.0\.1:1001" and 1 more/,
    ],
  ];
  for (const [rules, message] of denied) {
    await put(`acl/policy/${ID}`, policy(rules));
    const said = () => agent.messages.filter((line) => message.test(line)).length;
    await until('it is said', () => said() > 0);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    assert.equal((await peers(nginx, 'web'))?.length, 2);
    assert.equal(said(), 1);
    await put(`acl/policy/${ID}`, policy(may));
  }

  await consul.drop(prefix, true);
  await has(0);
});
