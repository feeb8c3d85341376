// Discovery with Consul's ACLs: a token without rights sees a catalogue that is
// empty, or that lacks most of its services, and nothing goes because of it.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Agent } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { live, type Stack, startStack } from '../stack/stack.ts';

const master = '00000000-0000-4000-8000-000000000001';
const nodes = 'node_prefix "" { policy = "read" }';
const all = Array.from({ length: 12 }, (_, i) => `svc-${i}`);
const rule = { tag: 'reloadless', hold_empty: '1s' };

/** A Consul that denies by default, with all services. */
async function scene(t: TestContext): Promise<Stack> {
  const acl = { enabled: true, default_policy: 'deny', tokens: { master, agent: master } };
  const stack = await startStack({}, { config: { acl }, token: master });
  t.after(() => stack.stop());
  for (const [i, name] of all.entries()) {
    const instance = { name, id: name, address: '127.0.0.1', port: 1000 + i };
    await stack.consul.register({ ...instance, tags: ['reloadless'] });
  }
  return stack;
}

async function policy({ consul }: Stack, ...rules: string[]): Promise<string> {
  const json = { Name: 'discover', Rules: rules.join('\n') };
  const { ID } = await consul.http.put('acl/policy', { json }).json<{ ID: string }>();
  return ID;
}

/** @returns an agent with a token of its own, and a function that gives this other rights */
async function withToken(stack: Stack, ...rules: string[]) {
  const id = await policy(stack, ...rules);
  const json = { Policies: [{ ID: id }] };
  const token = await stack.consul.http.put('acl/token', { json }).json<{ SecretID: string }>();
  const file = join(stack.folder, 'token');
  writeFileSync(file, token.SecretID);
  const agent = stack.agent(
    '-c',
    stack.configure({ consul: { token_file: file, wait: '1s' }, discover: rule }),
  );
  async function may(...other: string[]): Promise<void> {
    const changed = { Name: 'discover', Rules: other.join('\n') };
    await stack.consul.http.put(`acl/policy/${id}`, { json: changed });
  }
  return { agent, may };
}

async function served({ nginx }: Stack): Promise<string[]> {
  const { upstreams } = await live(nginx);
  return Object.keys(upstreams).filter((name) => Object.keys(upstreams[name]?.peers ?? {}).length);
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((m) => message.test(m)));
}

test('a mass that vanishes is held; it goes when the right to see it is proven', async (t) => {
  const stack = await scene(t);
  const services = 'service_prefix "" { policy = "read" }';
  const { agent, may } = await withToken(stack, nodes, services);
  await until('all are served', async () => (await served(stack)).length === all.length);

  await may(nodes, 'service "svc-0" { policy = "read" }');
  await says(agent, /^discover: the catalogue shows 11 of 12 services no more: each stays/);
  await says(agent, /^svc-1: .*the token may not read service "svc-1"/);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.equal((await served(stack)).length, all.length);

  await may(nodes, services);
  for (const name of all.slice(1)) await stack.consul.deregister(name);
  await until('one is left', async () => (await served(stack)).join() === 'svc-0', 30);
  assert.deepEqual(Object.keys((await live(stack.nginx)).upstreams), ['svc-0']);
});

test('an agent that starts with a token without rights takes nothing out', async (t) => {
  const stack = await scene(t);
  const peers = { '127.0.0.1:1000': {} };
  const upstreams = Object.fromEntries(all.map((name) => [name, { owner: 'reloadless', peers }]));
  await stack.nginx.http.patch('v1/upstreams', { json: { upstreams } });
  const { agent, may } = await withToken(stack, nodes);
  await says(agent, /connected$/);
  await says(agent, /^discover: found svc-/);
  await new Promise((resolve) => setTimeout(resolve, 3000));
  assert.equal((await served(stack)).length, all.length);

  // And it finds them as they are as soon as it may.
  await may(nodes, 'service_prefix "" { policy = "read" }');
  await until('the peers of Consul', async () => {
    return (
      Object.keys((await live(stack.nginx)).upstreams['svc-3']?.peers ?? {})[0] === '127.0.0.1:1003'
    );
  });
});
