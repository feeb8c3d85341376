// Which instances of a service are peers, at which of their addresses, and from
// which datacenter: against a real Consul. Namespaces, partitions and peers are of
// newer or Enterprise ones: test/unit/place.test.ts plays them.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import type { Agent } from '../stack/agent.ts';
import { Consul, type Instance } from '../stack/consul.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { peers, type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
let wan: number;
before(async () => {
  wan = await freePort();
  stack = await startStack({}, { config: { ports: { serf_wan: wan } } });
});
after(() => stack.stop());

function run(t: TestContext, upstreams: object): Agent {
  const agent = stack.agent('-c', stack.configure({ upstreams }));
  t.after(() => agent.stop());
  return agent;
}

async function register(t: TestContext, port: number, more: Partial<Instance>): Promise<void> {
  const id = `web-${port}`;
  await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port, ...more });
  t.after(() => stack.consul.deregister(id));
}

async function has(name: string, ...ports: number[]): Promise<void> {
  await hasAt(name, ...ports.map((port) => `127.0.0.1:${port}`));
}

async function hasAt(name: string, ...addresses: string[]): Promise<void> {
  await until(`${name} has ${addresses}`, async () => {
    return (await peers(stack.nginx, name))?.join() === addresses.join();
  });
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

test('several upstreams of one service, by tags and by meta, on one watch', async (t) => {
  await register(t, 1001, { tags: ['prod', 'blue'] });
  await register(t, 1002, { tags: ['prod', 'green'], meta: { track: 'canary' } });
  await register(t, 1003, { tags: ['test', 'green'], meta: { track: 'stable' } });
  const web = { service: 'web' };
  const agent = run(t, {
    all: { ...web, tags: ['prod', 'green'] },
    any: { ...web, tags_any: ['blue', 'test'] },
    none: { ...web, tags_none: ['blue', 'test'] },
    canary: { ...web, meta: { track: 'canary' } },
    rest: { ...web, meta_none: { track: 'canary' } },
    both: { ...web, tags: ['green'], tags_none: ['prod'], meta: { track: 'stable' } },
  });
  await has('all', 1002);
  await has('any', 1001, 1003);
  await has('none', 1002);
  await has('canary', 1002);
  await has('rest', 1001, 1003);
  await has('both', 1003);
  await says(agent, /^watches: 1 service, one connection each$/);
  await register(t, 1001, { tags: ['prod', 'blue'], meta: { track: 'canary' } });
  await has('canary', 1001, 1002);
  await has('rest', 1003);
  await stack.consul.deregister('web-1002');
  await has('canary', 1001);
  await says(agent, /^all: Consul shows no instance; the last peers stay for 60 s$/);
  assert.deepEqual(await peers(stack.nginx, 'all'), ['127.0.0.1:1002']);
  assert(!agent.messages.some((line) => /^watches: [^1]/.test(line)));
});

test('a tagged address with its port, and the plain one where there is none', async (t) => {
  async function put(port: number, more: object): Promise<void> {
    const json = { Name: 'web', ID: `web-${port}`, Port: port, ...more };
    await stack.consul.http.put('agent/service/register', { json });
    t.after(() => stack.consul.deregister(`web-${port}`));
  }
  const tagged = (address: string, port: number) => ({ Address: address, Port: port });
  await put(1001, {
    Address: '127.0.0.1',
    TaggedAddresses: {
      wan: tagged('127.0.0.2', 2001),
      lan_ipv6: tagged('fd00::7', 2002),
      virtual: tagged('240.0.0.1', 0),
    },
  });
  await put(1002, { Address: '127.0.0.3' });
  // As its node: there Consul itself tags addresses.
  await put(1003, {});
  const web = { service: 'web' };
  run(t, {
    plain: web,
    wan: { ...web, tagged_address: 'wan' },
    v6: { ...web, tagged_address: 'lan_ipv6' },
    virtual: { ...web, tagged_address: 'virtual' },
  });
  await hasAt('plain', '127.0.0.1:1001', '127.0.0.1:1003', '127.0.0.3:1002');
  await hasAt('wan', '127.0.0.1:1003', '127.0.0.2:2001', '127.0.0.3:1002');
  await hasAt('v6', '127.0.0.1:1003', '127.0.0.3:1002', '[fd00::7]:2002');
  await hasAt('virtual', '127.0.0.1:1003', '127.0.0.3:1002', '240.0.0.1:1001');
});

test('an instance that is registered a moment before its check waits for it', async (t) => {
  await register(t, 1001, {});
  const json = { Name: 'web', ID: 'web-1002', Port: 1002, Address: '127.0.0.1' };
  await stack.consul.http.put('agent/service/register', { json });
  t.after(() => stack.consul.deregister('web-1002'));
  run(t, { web: { require_check: true }, hasty: { service: 'web' } });
  await has('hasty', 1001, 1002);
  await has('web', 1001);
  // Nor does it serve when no other does.
  await stack.consul.health('web-1001', 'critical');
  await has('hasty', 1002);
  assert.deepEqual(await peers(stack.nginx, 'web'), ['127.0.0.1:1001']);
  const check = { ID: 'late', Name: 'late', ServiceID: 'web-1002', TTL: '1h', Status: 'passing' };
  await stack.consul.http.put('agent/check/register', { json: check });
  await has('web', 1002);
});

test('an upstream of another datacenter, for health and for KV', async (t) => {
  const far = await Consul.start(join(stack.folder, 'dc2'), {
    datacenter: 'dc2',
    node_name: 'far',
    ports: { serf_wan: await freePort() },
    retry_join_wan: [`127.0.0.1:${wan}`],
  });
  t.after(() => far.stop());
  await register(t, 1001, {});
  await far.register({ name: 'web', id: 'web-2001', address: '127.0.0.1', port: 2001 });
  await far.store('upstreams/kv/127.0.0.1:2002', '');
  await until('the datacenters know each other', async () => {
    const all: string[] = await stack.consul.http('catalog/datacenters').json();
    return all.length === 2;
  });
  const agent = run(t, {
    near: { service: 'web' },
    far: { service: 'web', datacenter: 'dc2' },
    kv: { source: 'kv', datacenter: 'dc2' },
    nowhere: { service: 'web', datacenter: 'dc3' },
  });
  await has('near', 1001);
  await has('far', 2001);
  await has('kv', 2002);
  await far.register({ name: 'web', id: 'web-2003', address: '127.0.0.1', port: 2003 });
  await has('far', 2001, 2003);
  await says(agent, /^nowhere: .*: 500 No path to datacenter: its peers stay, trying again$/);
  await far.deregister('web-2001');
  await has('far', 2003);
});

test('what Consul refuses is named, with its value, and is that upstream’s alone', async (t) => {
  await register(t, 1001, {});
  const filter = 'Service.Meta.version ==';
  const agent = run(t, { bad: { service: 'web', filter }, team: { namespace: 'team' }, web: {} });
  await has('web', 1001);
  await says(
    agent,
    /^bad: filter "Service\.Meta\.version ==": Consul at .*: 500 Failed to create boolean/,
  );
  await says(agent, /^team: .*: 400 .*Namespaces are a Consul Enterprise feature/);
});
