// More services than connections over plain HTTP, while a real Consul is killed,
// reads its log, takes rights away, or what lies between is cut or denies a bell.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Agent } from '../stack/agent.ts';
import { Cable } from '../stack/cable.ts';
import { until } from '../stack/process.ts';
import { close, listen } from '../stack/server.ts';
import { live, peers, type Stack, startStack } from '../stack/stack.ts';

const count = 20;
const names = Array.from({ length: count }, (_, i) => `s${i}`);
const master = '00000000-0000-4000-8000-000000000001';

type Acl = Parameters<typeof startStack>[1];

/** A stack whose services have one instance each. */
async function scene(t: TestContext, acl?: Acl): Promise<Stack> {
  const stack = await startStack({}, acl);
  t.after(() => stack.stop());
  for (const [i, name] of names.entries()) await register(stack, name, 1000 + i);
  return stack;
}

/** An instance on a port where nobody listens, whose TTL check outlives a restart. */
async function register(stack: Stack, name: string, port: number): Promise<void> {
  const id = `${name}-${port}`;
  await stack.consul.register({ name, id, address: '127.0.0.1', port });
  await stack.consul.health(id, 'passing');
}

/** An agent that follows all of them by doorbells. */
async function follow(stack: Stack, consul: object, settings = {}): Promise<Agent> {
  const upstreams = Object.fromEntries(names.map((name) => [name, settings]));
  const all = { max_connections: 8, wait: '2s', ...consul };
  const args = ['-c', stack.configure({ consul: all, upstreams })];
  const { address } = consul as { address?: string };
  const agent = stack.agent(...args, ...(address === undefined ? [] : ['--consul', address]));
  await says(agent, /^watches: 20 services by doorbells: /);
  for (const [i, name] of names.entries()) await has(stack, name, 1000 + i);
  return agent;
}

async function has(stack: Stack, name: string, ...ports: number[]): Promise<void> {
  const expected = ports.map((port) => `127.0.0.1:${port}`).join();
  await until(`${name} has ${expected}`, async () => {
    return (await peers(stack.nginx, name))?.join() === expected;
  });
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

/** Gives Consul's log so much more that reading it takes a while. */
async function lengthenLog({ consul }: Stack): Promise<void> {
  const json = Array.from({ length: 64 }, (_, i) => ({ KV: { Verb: 'set', Key: `${i}` } }));
  for (let i = 0; i < 40; i += 1) {
    await Promise.all(Array.from({ length: 25 }, () => consul.http.put('txn', { json })));
  }
}

test('Consul reading its log after a restart brings back nothing that has left', async (t) => {
  const stack = await scene(t);
  const agent = await follow(stack, {});
  await register(stack, 's3', 2003);
  await has(stack, 's3', 1003, 2003);
  await lengthenLog(stack);
  await stack.consul.deregister('s3-2003');
  await has(stack, 's3', 1003);
  const { version } = await live(stack.nginx);
  await stack.consul.stop('SIGKILL');
  await says(agent, /ECONNREFUSED.*: its peers stay, trying again$/);
  await stack.consul.up();
  await register(stack, 's7', 2007);
  await has(stack, 's7', 1007, 2007);
  assert.equal((await live(stack.nginx)).version, version + 1);
  await stack.consul.health('s7-2007', 'critical');
  await has(stack, 's7', 1007);
  await stack.consul.deregister('s3-1003');
  await says(agent, /^s3: Consul shows no instance; the last peers stay for 60 s$/);
});

test('what changes while everything is cut is learnt, and so is what changes then', async (t) => {
  const stack = await scene(t);
  const cable = await Cable.start(Number(new URL(stack.consul.address).port));
  t.after(() => cable.stop());
  await follow(stack, { address: `http://127.0.0.1:${cable.port}` });
  await register(stack, 's3', 2003);
  await has(stack, 's3', 1003, 2003);
  for (let round = 0; round < 3; round += 1) {
    const written = stack.consul.health('s3-2003', 'critical');
    cable.reset();
    await written;
    await has(stack, 's3', 1003);
    await stack.consul.health('s3-2003', 'passing');
    await has(stack, 's3', 1003, 2003);
  }
});

test('where a doorbell is denied, it is said, and every change is found', async (t) => {
  const stack = await scene(t);
  let isDenied = true;
  const server = createServer((asked, response) => {
    const { url: path = '', method, headers } = asked;
    if (isDenied && path.startsWith('/v1/health/state/')) {
      response.writeHead(403).end('denied by the proxy');
      return;
    }
    const sent = request(stack.consul.address + path, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(response);
    });
    asked.pipe(sent);
    sent.on('error', () => response.destroy());
    response.on('close', () => sent.destroy());
  });
  const address = `http://${await listen(server)}`;
  t.after(() => close(server));
  const agent = await follow(stack, { address });
  await says(agent, /health\/state\/\w+: .*: 403 denied by the proxy: so all are looked at/);
  await register(stack, 's3', 2003);
  await has(stack, 's3', 1003, 2003);
  for (const state of ['critical', 'passing'] as const) {
    await stack.consul.health('s3-2003', state);
    await has(stack, 's3', ...(state === 'passing' ? [1003, 2003] : [1003]));
  }
  isDenied = false;
  const last = () => agent.messages.filter((line) => line.startsWith('watches: ')).at(-1);
  await until('it is heard', () => last()?.includes('a check is heard at once') === true);
});

test('a token that loses its rights takes no peer along, which is said', async (t) => {
  const acl = { enabled: true, default_policy: 'deny', tokens: { master, agent: master } };
  const stack = await scene(t, { config: { acl }, token: master });
  const put = (path: string, json: object) => stack.consul.http.put(path, { json }).json();
  const rules = 'node_prefix "" { policy = "read" } service_prefix "s" { policy = "read" }';
  const policy = (await put('acl/policy', { Name: 'p', Rules: rules })) as { ID: string };
  const token = (await put('acl/token', { Policies: [{ Name: 'p' }] })) as { SecretID: string };
  const token_file = join(stack.folder, 'token');
  writeFileSync(token_file, token.SecretID);
  const agent = await follow(stack, { token_file }, { hold_empty: 1 });
  await register(stack, 's3', 2003);
  await has(stack, 's3', 1003, 2003);
  await stack.consul.health('s3-2003', 'critical');
  await has(stack, 's3', 1003);

  const narrow = `${rules} service "s7" { policy = "deny" }`;
  await put(`acl/policy/${policy.ID}`, { Name: 'p', Rules: narrow });
  await says(agent, /^s7: .*the token may not read service "s7".*: its last peers stay$/);
  await has(stack, 's7', 1007);
  await put(`acl/policy/${policy.ID}`, { Name: 'p', Rules: rules });
  await register(stack, 's7', 2007);
  await has(stack, 's7', 1007, 2007);
});
