// `reloadless run` between a real Consul and a real nginx.
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { loadSnapshot, saveSnapshot } from '../../agent/snapshot/file.ts';
import { Agent } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { until } from '../stack/process.ts';
import { Recorder } from '../stack/recorder.ts';
import { ask, live, peers, type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack({ init: 'allow = { "127.0.0.0/8" },' });
});
after(() => stack.stop());

/** An agent that ends with the test; what it made in nginx goes with the next one's start. */
function run(t: TestContext, ...args: string[]): Agent {
  const agent = stack.agent(...args);
  t.after(() => agent.stop());
  return agent;
}

/** Instances that end with the test, on ports where nobody listens. */
async function register(t: TestContext, name: string, ...ports: number[]): Promise<void> {
  for (const port of ports) {
    const id = `${name}-${port}`;
    await stack.consul.register({ name, id, address: '127.0.0.1', port });
    t.after(() => stack.consul.deregister(id));
  }
}

async function has(name: string, ...ports: number[]): Promise<void> {
  const expected = ports.map((port) => `127.0.0.1:${port}`).join();
  await until(`${name} has ${expected || 'no peers'}`, async () => {
    return (await peers(stack.nginx, name))?.join() === expected;
  });
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

test('instances that come, go, fall ill, recover and go into maintenance', async (t) => {
  const { consul } = stack;
  await register(t, 'web', 1001, 1002);
  const agent = run(t, '--service', 'web');
  await has('web', 1001, 1002);
  await register(t, 'web', 1003);
  await has('web', 1001, 1002, 1003);
  await consul.health('web-1001', 'critical');
  await has('web', 1002, 1003);
  await consul.health('web-1001', 'warning');
  await has('web', 1001, 1002, 1003);
  await consul.maintenance('web-1002', true);
  await has('web', 1001, 1003);
  await consul.maintenance('web-1002', false);
  await has('web', 1001, 1002, 1003);
  await consul.deregister('web-1003');
  await has('web', 1001, 1002);
  await says(agent, /^web: \+127\.0\.0\.1:1001 \+127\.0\.0\.1:1002$/);
  await says(agent, /^web: -127\.0\.0\.1:1003$/);
});

test('a change of weight is a change', async (t) => {
  const instance = { name: 'web', id: 'web-1', address: '127.0.0.1', port: 1001 };
  await stack.consul.register({ ...instance, weights: { Passing: 5, Warning: 2 } });
  t.after(() => stack.consul.deregister('web-1'));
  run(t, '--service', 'web');
  const weight = async () =>
    (await live(stack.nginx)).upstreams.web?.peers['127.0.0.1:1001']?.weight;
  await until('weight 5', async () => (await weight()) === 5);
  await stack.consul.health('web-1', 'warning');
  await until('the weight of a warning', async () => (await weight()) === 2);
  // Registering it again leaves the state of its check.
  await stack.consul.register({ ...instance, weights: { Passing: 5, Warning: 3 } });
  await until('weight 3', async () => (await weight()) === 3);
});

test('when all are critical all serve, but those in maintenance', async (t) => {
  await register(t, 'web', 1001, 1002, 1003);
  const agent = run(t, '--service', 'web');
  await has('web', 1001, 1002, 1003);
  await stack.consul.maintenance('web-1003', true);
  await stack.consul.health('web-1001', 'critical');
  await has('web', 1002);
  await stack.consul.health('web-1002', 'critical');
  await has('web', 1001, 1002);
  await says(agent, /^web: too few are healthy/);
  await stack.consul.health('web-1002', 'passing');
  await has('web', 1002);
});

test('the last instance that vanishes is held, then believed', async (t) => {
  await register(t, 'web', 1001);
  await register(t, 'api', 1002);
  const file = stack.configure({ upstreams: { web: { hold_empty: '2s' }, api: {} } });
  const agent = run(t, '-c', file);
  await has('web', 1001);
  await stack.consul.deregister('web-1001');
  const gone = Date.now();
  await says(agent, /^web: Consul shows no instance; the last peers stay for 2 s$/);
  assert.deepEqual(await peers(stack.nginx, 'web'), ['127.0.0.1:1001']);
  await has('web');
  assert(Date.now() - gone >= 1900, 'held for two seconds');
  await register(t, 'web', 1003);
  await has('web', 1003);
});

test('when all services vanish at once nothing is removed until one is back', async (t) => {
  await register(t, 'web', 1001);
  await register(t, 'api', 1002);
  const file = stack.configure({ upstreams: { web: { hold_empty: 0 }, api: { hold_empty: 0 } } });
  const agent = run(t, '-c', file);
  await has('web', 1001);
  await has('api', 1002);
  await stack.consul.deregister('web-1001');
  await has('web');
  await stack.consul.deregister('api-1002');
  await says(agent, /^api: Consul shows no instance; the last peers stay until one/);
  await new Promise((resolve) => setTimeout(resolve, 2500));
  assert.deepEqual(await peers(stack.nginx, 'api'), ['127.0.0.1:1002']);
  await register(t, 'web', 1001);
  await has('web', 1001);
  await has('api');
});

test('two instances on one address: one may leave', async (t) => {
  for (const id of ['a', 'b']) {
    await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port: 1001 });
    t.after(() => stack.consul.deregister(id));
  }
  await register(t, 'web', 1002);
  run(t, '--service', 'web');
  await has('web', 1001, 1002);
  const { version } = await live(stack.nginx);
  await stack.consul.deregister('a');
  await until('the id of the other', async () => {
    return (await live(stack.nginx)).upstreams.web?.peers['127.0.0.1:1001']?.id === 'b';
  });
  assert.equal((await live(stack.nginx)).version, version + 1);
  await stack.consul.health('b', 'critical');
  await has('web', 1002);
});

test('a malformed instance is left out and said; the others go on', async (t) => {
  await stack.consul.register({ name: 'web', id: 'no-port', address: '127.0.0.1', port: 0 });
  t.after(() => stack.consul.deregister('no-port'));
  await register(t, 'web', 1001);
  const agent = run(t, '--service', 'web');
  await has('web', 1001);
  await says(agent, /^web: left out: no-port on local: Service\.Port: 0 is not an integer/);
});

test('a host name is resolved', async (t) => {
  await stack.consul.register({ name: 'web', id: 'n', address: 'localhost', port: 1001 });
  t.after(() => stack.consul.deregister('n'));
  run(t, '--service', 'web');
  await until('127.0.0.1', async () => {
    return (await peers(stack.nginx, 'web'))?.includes('127.0.0.1:1001');
  });
});

test('a change of one peer of a thousand travels as one peer, and moves one version', async (t) => {
  const node = { Node: 'many', Address: '127.0.0.1' };
  const change = (port: number, Passing: number) => {
    const Service = {
      ID: `big-${port}`,
      Service: 'big',
      Port: port,
      Weights: { Passing, Warning: 1 },
    };
    return stack.consul.http.put('catalog/register', { json: { ...node, Service } });
  };
  for (let i = 0; i < 1000; i += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, j) => change(2000 + i + j, 1)));
  }
  await register(t, 'api', 1002);
  const recorder = await Recorder.start(stack.nginx.adminPort);
  const flags = ['--consul', stack.consul.address, '--openresty', recorder.address];
  const snapshot = ['--snapshot', join(stack.folder, 'big.snapshot')];
  const services = ['--service', 'big', '--service', 'api'];
  const agent = Agent.start(join(stack.folder, 'big.log'), [...flags, ...snapshot, ...services]);
  t.after(async () => {
    await agent.stop();
    await recorder.stop();
    await stack.consul.http.put('catalog/deregister', { json: node });
  });
  await until('all peers', async () => (await peers(stack.nginx, 'big'))?.length === 1000);
  await has('api', 1002);

  const before = await live(stack.nginx);
  const sent = recorder.writes.length;
  await change(2500, 9);
  await until('the weight', async () => {
    return (await live(stack.nginx)).upstreams.big?.peers['127.0.0.1:2500']?.weight === 9;
  });
  assert.deepEqual(
    recorder.writes.slice(sent).map(({ body }) => body),
    ['{"upstreams":{"big":{"peers":{"127.0.0.1:2500":{"weight":9}}}}}'],
  );
  const now = await live(stack.nginx);
  assert.equal(now.version, before.version + 1);
  assert.equal(now.upstreams.big?.version, now.version);
  assert.equal(now.upstreams.api?.version, before.upstreams.api?.version);
});

test('what somebody changes by hand in our upstream is put right, and said', async (t) => {
  await register(t, 'web', 1001, 1002);
  const file = stack.configure({ upstreams: { web: { max_fails: 3 } } });
  const agent = run(t, '-c', file);
  await has('web', 1001, 1002);
  const { admin, http } = stack.nginx;
  const said = () => agent.messages.filter((line) => /somebody/.test(line));
  const line = (what: string) => {
    return `web: undone at ${admin} what somebody changed there: ${what}; change it in Consul or in reloadless.yml`;
  };
  // A change of our own is not somebody's.
  await register(t, 'web', 1003);
  await has('web', 1001, 1002, 1003);
  assert.deepEqual(said(), []);

  const by_hand = {
    max_fails: 5,
    peers: {
      '127.0.0.1:1001': null,
      '127.0.0.1:9': {},
      '127.0.0.1:1002': { drain: true, weight: 7 },
    },
  };
  await http.patch('v1/upstreams/web', { json: by_hand });
  await has('web', 1001, 1002, 1003);
  await until('it is said', () => said().length === 1);
  const [changed] = said();
  // In which order nginx sends them is its own affair.
  const pieces = changed
    ?.match(/ there: (.*); change it in Consul/)?.[1]
    ?.split(', ')
    .sort();
  assert.deepEqual(pieces, [
    '+127.0.0.1:9',
    '-127.0.0.1:1001',
    'max_fails',
    '~127.0.0.1:1002 drain weight',
  ]);

  await http.delete('v1/upstreams/web');
  await has('web', 1001, 1002, 1003);
  await until('it is said', () => said().includes(line('it was removed')));
  await http.put('v1/upstreams/mine', { json: { owner: 'reloadless', peers: {} } });
  await until('it is removed', async () => (await peers(stack.nginx, 'mine')) === undefined);
  await until('it is said', () => said().some((text) => /^mine: .*it was made/.test(text)));
  assert.equal(said().length, 3);
});

test('an upstream of another owner is left alone, until it is gone', async (t) => {
  await register(t, 'taken', 1001);
  const { http } = stack.nginx;
  await http.put('v1/upstreams/taken', { json: { owner: 'them', peers: { '127.0.0.1:9': {} } } });
  const agent = run(t, '--service', 'taken');
  await says(agent, /taken belongs to another owner: left alone$/);
  assert.deepEqual(await peers(stack.nginx, 'taken'), ['127.0.0.1:9']);
  await http.delete('v1/upstreams/taken');
  await has('taken', 1001);
});

test('what OpenResty refuses is said, holds up nobody, and arrives once it is good', async (t) => {
  const far = { name: 'far', id: 'far', port: 1009 };
  await stack.consul.register({ ...far, address: '10.0.0.1' });
  t.after(() => stack.consul.deregister('far'));
  await register(t, 'web', 1001);
  const agent = run(t, '--service', 'far', '--service', 'web');
  await has('web', 1001);
  await says(agent, /^far: left out by OpenResty at .*: 10\.0\.0\.1:1009 \(the address is /);
  await register(t, 'web', 1002);
  await has('web', 1001, 1002);
  const lines = agent.messages.filter((line) => line.startsWith('far: left out'));
  assert.equal(lines.length, 1, lines.join('\n'));
  await stack.consul.register({ ...far, address: '127.0.0.1' });
  await has('far', 1009);
});

test('a bad filter is said loudly; the others go on', async (t) => {
  await register(t, 'web', 1001);
  const file = stack.configure({ upstreams: { bad: { filter: 'no such (' }, web: {} } });
  const agent = run(t, '-c', file);
  await has('web', 1001);
  await says(agent, /^bad: filter "no such \(": Consul at .*boolean expression/);
});

test('the snapshot holds what serves', async (t) => {
  await register(t, 'web', 1099);
  run(t, '--service', 'web');
  await until('the snapshot', () => {
    const saved = loadSnapshot(stack.nginx.snapshot)?.document.upstreams.web;
    return saved !== undefined && Object.keys(saved.peers).join() === '127.0.0.1:1099';
  });
});

test('a snapshot is written by who knows all upstreams, or was told where', async (t) => {
  const flags = ['--consul', stack.consul.address, '--openresty', stack.nginx.admin];
  await register(t, 'web', 1001);
  const log = join(stack.folder, 'trial.log');
  const trial = Agent.start(log, [...flags, '--service', 'web']);
  t.after(() => trial.stop());
  await has('web', 1001);
  await trial.stop();
  assert.deepEqual(
    trial.messages.filter((line) => line.includes('snapshot')),
    [],
  );
});

test('a snapshot that somebody else has changed is said and written again', async (t) => {
  await register(t, 'web', 1098);
  const path = stack.nginx.snapshot;
  const agents = [run(t, '--service', 'web'), run(t, '--service', 'web')];
  const saved = () => loadSnapshot(path)?.document.upstreams;
  const isOurs = () => Object.keys(saved()?.web?.peers ?? {}).join() === '127.0.0.1:1098';
  const said = () => {
    return agents.flatMap(({ messages }) => messages.filter((line) => /somebody else/.test(line)));
  };
  await until('the snapshot', isOurs);
  // Both write the same file, and hold the other's for as good as their own.
  await new Promise((resolve) => setTimeout(resolve, 7000));
  assert.deepEqual(said(), []);

  const document = { upstreams: { api: { peers: {} } } };
  await saveSnapshot(path, { savedAt: new Date(), document });
  await until('it is ours again', isOurs);
  assert(said().length > 0);
  assert.match(said()[0] ?? '', /^snapshot .* was changed by somebody else and is written again/);
  rmSync(path);
  await until('it is there again', isOurs, 40);
});

test('SIGTERM ends it within a second, and OpenResty keeps serving', async (t) => {
  const backend = await Backend.start('one');
  t.after(() => backend.stop());
  await register(t, 'web', backend.port);
  const agent = run(t, '--service', 'web');
  await has('web', backend.port);
  const began = Date.now();
  await agent.stop('SIGTERM');
  assert.equal(agent.exitCode, 0);
  assert(Date.now() - began < 1000, `${Date.now() - began} ms`);
  assert.equal(await ask(stack.nginx, 'web'), 'one');
});

test('SIGHUP takes a good configuration and refuses a bad one', async (t) => {
  await register(t, 'web', 1001);
  await register(t, 'api', 1002);
  const file = stack.configure({ upstreams: { web: {} } });
  const agent = run(t, '-c', file);
  await has('web', 1001);

  writeFileSync(file, JSON.stringify({ upstreams: { web: { max_fails: -1 }, api: {} } }));
  agent.hup();
  await says(
    agent,
    /^configuration not changed: .*upstreams\.web\.max_fails: -1 is not an integer/,
  );
  assert.equal(await peers(stack.nginx, 'api'), undefined);
  await register(t, 'web', 1003);
  await has('web', 1001, 1003);

  writeFileSync(file, JSON.stringify({ upstreams: { api: {}, web: { max_tries: 2 } } }));
  agent.hup();
  await says(agent, /^configuration read again$/);
  await has('api', 1002);
  await until('max_tries', async () => {
    const { upstreams } = await live(stack.nginx);
    return (upstreams.web as { max_tries?: number } | undefined)?.max_tries === 2;
  });

  writeFileSync(file, JSON.stringify({ upstreams: { api: {} } }));
  agent.hup();
  await until('web is gone', async () => (await peers(stack.nginx, 'web')) === undefined);
  await has('api', 1002);
});
