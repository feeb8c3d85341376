// Consul with ACLs: a token without rights gets 200 and an empty list.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type Agent, reloadless } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { until } from '../stack/process.ts';
import { ask, peers, type Stack, startStack } from '../stack/stack.ts';
import { traffic } from '../stack/traffic.ts';

const master = '00000000-0000-4000-8000-000000000001';
const nodes = 'node_prefix "" { policy = "read" }';
const services = 'service_prefix "" { policy = "read" }';

interface Scene {
  stack: Stack;
  backend: Backend;
}

interface Token {
  secret: string;
  accessor: string;
  /** Gives it other rights. */
  may(...rules: string[]): Promise<void>;
}

/**
 * A Consul that denies by default, with `api` on the node `local`, and one
 * instance of `web`, which answers, on the node `east`.
 */
async function scene(t: TestContext): Promise<Scene> {
  const acl = { enabled: true, default_policy: 'deny', tokens: { master, agent: master } };
  const stack = await startStack({}, { config: { acl }, token: master });
  t.after(() => stack.stop());
  const backend = await Backend.start('one');
  t.after(() => backend.stop());
  await stack.consul.register({ name: 'api', id: 'api-1', address: '127.0.0.1', port: 999 });
  await registerWeb(stack, 1, backend.port);
  return { stack, backend };
}

async function registerWeb({ consul }: Stack, n: number, port: number): Promise<void> {
  const Service = { Service: 'web', ID: `web-${n}`, Address: '127.0.0.1', Port: port };
  await consul.http.put('catalog/register', {
    json: { Node: 'east', Address: '127.0.0.1', Service },
  });
}

async function deregisterWeb({ consul }: Stack, n: number): Promise<void> {
  const json = { Node: 'east', ServiceID: `web-${n}` };
  await consul.http.put('catalog/deregister', { json });
}

async function tokenWith({ consul }: Stack, ...rules: string[]): Promise<Token> {
  const Name = `p${Math.random()}`.replace('.', '');
  const put = (path: string, json: object) => consul.http.put(path, { json }).json();
  const body = (lines: string[]) => ({ Name, Rules: lines.join('\n') });
  const policy = (await put('acl/policy', body(rules))) as { ID: string };
  const token = (await put('acl/token', { Policies: [{ Name }] })) as Record<string, string>;
  return {
    secret: token.SecretID ?? '',
    accessor: token.AccessorID ?? '',
    async may(...lines) {
      await put(`acl/policy/${policy.ID}`, body(lines));
    },
  };
}

/** An agent that watches both services with this token, once `web` answers. */
async function watching({ stack }: Scene, file: string): Promise<Agent> {
  const upstreams = { web: { hold_empty: 1 }, api: {} };
  const agent = stack.agent('-c', stack.configure({ consul: { token_file: file }, upstreams }));
  await until('web serves', async () => (await ask(stack.nginx, 'web')) === 'one');
  return agent;
}

const narrowed: [string, string[], RegExp][] = [
  [
    'the service itself',
    [nodes, 'service "api" { policy = "read" }'],
    /may not read service "web"/,
  ],
  [
    'the node of its instances',
    [nodes, 'node "east" { policy = "deny" }', services],
    /may not read node "east"/,
  ],
];

for (const [what, rules, message] of narrowed) {
  test(`a token that may not read ${what} any more empties nothing`, async (t) => {
    const it = await scene(t);
    const { stack, backend } = it;
    const token = await tokenWith(stack, nodes, services);
    const file = join(stack.folder, 'token');
    writeFileSync(file, token.secret);
    const agent = await watching(it, file);

    const stop = traffic(t, stack);
    await token.may(...rules);
    // A query that is held goes on with the old rights: this one ends it, with an empty list.
    await registerWeb(stack, 1, backend.port + 1);
    await until('it is held', () => agent.messages.some((m) => /^web: .*no instance/.test(m)));
    await new Promise((resolve) => setTimeout(resolve, 5000));
    assert.deepEqual((await stop()).wrong, []);
    assert.equal(agent.messages.filter((m) => message.test(m)).length, 1, 'said once');

    await token.may(nodes, services);
    await registerWeb(stack, 1, backend.port);
    await deregisterWeb(stack, 1);
    // A real departure is believed with the rights back, as without this all.
    await until('web is empty', async () => (await peers(stack.nginx, 'web'))?.length === 0, 60);
  });
}

test('a real departure is believed, by a token that may read no more than it needs', async (t) => {
  const it = await scene(t);
  const file = join(it.stack.folder, 'token');
  const rules = ['node "east" { policy = "read" }', 'node "local" { policy = "read" }', services];
  writeFileSync(file, (await tokenWith(it.stack, ...rules)).secret);
  await watching(it, file);
  await deregisterWeb(it.stack, 1);
  await until('web is empty', async () => (await peers(it.stack.nginx, 'web'))?.length === 0);
});

test('a token that is put in the place of a weak one is used', async (t) => {
  const it = await scene(t);
  const { stack } = it;
  const file = join(stack.folder, 'token');
  const weak = await tokenWith(stack, services);
  writeFileSync(file, (await tokenWith(stack, nodes, services)).secret);
  const agent = await watching(it, file);

  writeFileSync(file, `${weak.secret}\n`);
  agent.hup();
  // The query that is held goes on with the old token; the one after it has the new.
  await registerWeb(stack, 2, 1002);
  await until('both peers', async () => (await peers(stack.nginx, 'web'))?.length === 2);
  await registerWeb(stack, 3, 1003);
  // Where the watch of api has the new token as well, nothing is confirmed before one of them is back.
  await until('it is held', () => agent.messages.some((m) => /^web: .*no instance/.test(m)));
  assert.equal((await peers(stack.nginx, 'web'))?.length, 2);

  writeFileSync(file, (await tokenWith(stack, nodes, services)).secret);
  // The token goes: the next request is a 403, and the file is read again without a signal.
  await stack.consul.http.delete(`acl/token/${weak.accessor}`);
  await until('all peers', async () => (await peers(stack.nginx, 'web'))?.length === 3);
  assert(!agent.log.includes(weak.secret), 'a token in the log');
});

test('sync with a token without rights changes nothing and says why', async (t) => {
  const { stack } = await scene(t);
  const config = stack.configure({ upstreams: { web: { hold_empty: 0 } } });
  const sync = (env: NodeJS.ProcessEnv, ...more: string[]) =>
    reloadless(['sync', ...stack.flags, '-c', config, ...more], env);
  const good = await tokenWith(stack, nodes, services);
  assert.equal((await sync({ CONSUL_HTTP_TOKEN: good.secret })).code, 0);
  const before = await peers(stack.nginx, 'web');
  assert.equal(before?.length, 1);
  const weak = [
    await tokenWith(stack, services),
    await tokenWith(stack, nodes, 'service "api" { policy = "read" }'),
  ];
  for (const env of [{}, ...weak.map(({ secret }) => ({ CONSUL_HTTP_TOKEN: secret }))]) {
    const result = await sync(env);
    assert.equal(result.code, 1);
    assert.match(result.stderr, /^reloadless: Consul at .*the token may not read .*\n$/);
    assert.deepEqual(await peers(stack.nginx, 'web'), before);
  }
  await deregisterWeb(stack, 1);
  // What may be read, and is not there, is told from what may not be read.
  const gone = await sync({ CONSUL_HTTP_TOKEN: good.secret });
  assert.deepEqual([gone.code, /Consul knows no such service/.test(gone.stderr)], [1, true]);
  const allowed = await sync({ CONSUL_HTTP_TOKEN: good.secret }, '--allow-empty');
  assert.equal(allowed.code, 0);
  assert.deepEqual(await peers(stack.nginx, 'web'), []);
});

test('an unknown token is refused by Consul, and named by its status only', async (t) => {
  const { stack } = await scene(t);
  const secret = '00000000-0000-4000-8000-00000000dead';
  const env = { CONSUL_HTTP_TOKEN: secret };
  const result = await reloadless(['sync', ...stack.flags, '--service', 'web'], env);
  assert.equal(result.code, 1);
  assert.match(result.stderr, /^reloadless: Consul at .*: 403 ACL not found\n$/);
});
