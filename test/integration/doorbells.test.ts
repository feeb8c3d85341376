// More services than connections, over plain HTTP, between a real Consul that
// takes few connections of one client and a real nginx: doorbells carry them.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { after, before, type TestContext, test } from 'node:test';
import type { Agent } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { live, peers, type Stack, startStack } from '../stack/stack.ts';

/** So many connections the agent may have, and Consul takes of one client. */
const [budget, limit] = [8, 24];
const tags = ['reloadless'];

let stack: Stack;
before(async () => {
  const config = { limits: { http_max_conns_per_client: limit } };
  stack = await startStack({}, { config });
});
after(() => stack.stop());

const names = (count: number) => Array.from({ length: count }, (_, i) => `s${i}`);

/** An instance that ends with the test, on a port where nobody listens. */
async function register(t: TestContext, name: string, port: number, more = {}): Promise<string> {
  const id = `${name}-${port}`;
  await stack.consul.register({ name, id, address: '127.0.0.1', port, tags, ...more });
  t.after(() => stack.consul.deregister(id).catch(() => {}));
  return id;
}

async function run(t: TestContext, config: object): Promise<Agent> {
  const consul = { max_connections: budget, wait: '2s' };
  const agent = stack.agent('-c', stack.configure({ consul, ...config }));
  t.after(() => agent.stop());
  return agent;
}

/** An agent that follows so many services of one instance each. */
async function follow(t: TestContext, count: number, settings = {}): Promise<Agent> {
  for (const [i, name] of names(count).entries()) await register(t, name, 1000 + i);
  const upstreams = Object.fromEntries(names(count).map((name) => [name, settings]));
  const agent = await run(t, { upstreams });
  await says(agent, new RegExp(`^watches: ${count} services by doorbells: `));
  for (const [i, name] of names(count).entries()) await has(name, 1000 + i);
  return agent;
}

async function has(name: string, ...ports: number[]): Promise<void> {
  const expected = ports.map((port) => `127.0.0.1:${port}`).join();
  await until(`${name} has ${expected}`, async () => {
    return (await peers(stack.nginx, name))?.join() === expected;
  });
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

/** Nothing failed, and nothing was read for want of a doorbell alone. */
function isWell(agent: Agent): void {
  const wrong = agent.log.match(/.*(trying again|http_max_conns|"level":50).*/g) ?? [];
  assert.deepEqual(wrong, []);
}

test('what it is and what it costs is said in one line', async (t) => {
  const agent = await follow(t, 30);
  const said = agent.messages.filter((line) => line.startsWith('watches: '));
  assert.deepEqual(said, [
    'watches: 30 services by doorbells: a check is heard at once, what else changes in 1.5 s, ' +
      'for 8 reads a second and 30 looks while instances come and go; ' +
      'https:// or a higher consul.max_connections gives each a query of its own',
  ]);
  isWell(agent);
});

test('a check of an instance is heard in each of its states, and maintenance', async (t) => {
  const agent = await follow(t, 30, { min_health: 'passing' });
  const id = await register(t, 's7', 2000);
  await has('s7', 1007, 2000);
  for (const state of ['critical', 'warning', 'critical', 'passing', 'warning'] as const) {
    await stack.consul.health(id, state);
    await has('s7', ...(state === 'passing' ? [1007, 2000] : [1007]));
  }
  await stack.consul.health(id, 'passing');
  await has('s7', 1007, 2000);
  await stack.consul.maintenance(id, true);
  await has('s7', 1007);
  await stack.consul.maintenance(id, false);
  await has('s7', 1007, 2000);
  isWell(agent);
});

test('the weight of a warning counts, and is taken back', async (t) => {
  await follow(t, 30);
  const id = await register(t, 's7', 1007, { weights: { Passing: 9, Warning: 2 } });
  const weight = async () =>
    (await live(stack.nginx)).upstreams.s7?.peers['127.0.0.1:1007']?.weight;
  await until('the weight', async () => (await weight()) === 9);
  await stack.consul.health(id, 'warning');
  await until('that of the warning', async () => (await weight()) === 2);
  await stack.consul.health(id, 'passing');
  await until('the weight', async () => (await weight()) === 9);
});

test('a check of a whole node is heard for all services on it', async (t) => {
  const agent = await follow(t, 30);
  const node = { Node: 'far', Address: '127.0.0.1' };
  const put = (path: string, json: object) => stack.consul.http.put(path, { json });
  t.after(() => put('catalog/deregister', { Node: 'far' }));
  for (const [i, name] of names(20).entries()) {
    const Service = { Service: name, ID: `far-${name}`, Port: 3000 + i };
    await put('catalog/register', { ...node, Service });
  }
  for (const [i, name] of names(20).entries()) await has(name, 1000 + i, 3000 + i);
  const check = { CheckID: 'node', Name: 'node', Status: 'critical' };
  await put('catalog/register', { ...node, Check: check });
  for (const [i, name] of names(20).entries()) await has(name, 1000 + i);
  await put('catalog/register', { ...node, Check: { ...check, Status: 'passing' } });
  for (const [i, name] of names(20).entries()) await has(name, 1000 + i, 3000 + i);
  // Its address is that of its instances.
  await put('catalog/register', { ...node, Address: '127.0.0.2' });
  const moved = async () => (await peers(stack.nginx, 's3'))?.includes('127.0.0.2:3003');
  await until('its instances have its address', moved);
  await put('catalog/deregister', { Node: 'far' });
  for (const [i, name] of names(20).entries()) await has(name, 1000 + i);
  isWell(agent);
});

test('instances come and go, change their port, and services appear', async (t) => {
  const missing = { missing: {} };
  for (const [i, name] of names(30).entries()) await register(t, name, 1000 + i);
  const upstreams = Object.fromEntries(names(30).map((name) => [name, {}]));
  const agent = await run(t, { upstreams: { ...upstreams, ...missing } });
  await says(agent, /^watches: 31 services by doorbells: /);
  for (const i of [3, 17, 29]) {
    const id = await register(t, `s${i}`, 2000 + i);
    await has(`s${i}`, 1000 + i, 2000 + i);
    const other = { name: `s${i}`, id, address: '127.0.0.1', port: 2500 + i };
    await stack.consul.register(other);
    await has(`s${i}`, 1000 + i, 2500 + i);
    await stack.consul.deregister(id);
    await has(`s${i}`, 1000 + i);
  }
  await register(t, 'missing', 4000);
  await has('missing', 4000);
  isWell(agent);
});

test('services beyond the connections are found and come and go, and Consul serves others too', async (t) => {
  const discover = { tag: 'reloadless', hold_empty: '1s' };
  // What other tests have left could have been found.
  await stack.nginx.http.put('v1/upstreams', { json: { upstreams: {} } });
  rmSync(stack.nginx.snapshot, { force: true });
  for (const [i, name] of names(4).entries()) await register(t, name, 1000 + i);
  const agent = await run(t, { discover });
  await says(agent, /^watches: 5 services, one connection each$/);
  // What changes while they are carried over is not lost.
  for (const [i, name] of names(40).entries()) {
    await register(t, name, 1000 + i);
    if (i % 4 === 0) await register(t, `s${i % 4}`, 2000 + i);
  }
  await says(agent, /^watches: \d\d services by doorbells: /);
  for (const [i, name] of names(40).entries()) if (i > 0) await has(name, 1000 + i);
  await has('s0', 1000, ...Array.from({ length: 10 }, (_, i) => 2000 + 4 * i));

  for (const [i, name] of names(40).entries()) {
    if (i > 2) await stack.consul.deregister(`${name}-${1000 + i}`);
    if (i % 4 === 0) await stack.consul.deregister(`s0-${2000 + i}`);
  }
  await has('s0', 1000);
  await until('only some are left', async () => {
    return Object.keys((await live(stack.nginx)).upstreams).join() === 's0,s1,s2';
  });
  await until('each has a connection', () => {
    const said = agent.messages.filter((line) => line.startsWith('watches: '));
    return said.at(-1) === 'watches: 4 services, one connection each';
  });
  await register(t, 's1', 2001);
  await has('s1', 1001, 2001);
  isWell(agent);
});
