// Upstreams out of Consul's KV: the layout of nginx-upsync-module, with the keys
// and values of its documentation, a document in one key, and KV joined with health.
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { Agent } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { live, peers, type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack({ init: 'allow = { "127.0.0.0/8" },' });
});
after(() => stack.stop());

/** An agent that ends with the test, and its keys with it. */
function run(t: TestContext, upstreams: object): Agent {
  const agent = stack.agent('-c', stack.configure({ upstreams }));
  t.after(async () => {
    await agent.stop();
    await stack.consul.drop('upstreams/', true);
    await stack.nginx.http.put('v1/upstreams', { json: { upstreams: {} } });
  });
  return agent;
}

const key = (port: number, name = 'test') => `upstreams/${name}/127.0.0.1:${port}`;

async function has(name: string, ...ports: number[]): Promise<void> {
  const expected = ports.map((port) => `127.0.0.1:${port}`).join();
  await until(`${name} has ${expected || 'no peers'}`, async () => {
    return (await peers(stack.nginx, name))?.join() === expected;
  });
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

const count = (agent: Agent, message: RegExp) =>
  agent.messages.filter((line) => message.test(line)).length;

interface Stored {
  max_fails?: number;
  fail_timeout?: number;
  peers: Record<string, object>;
}

/** What nginx has of an upstream. */
function stored(name: string): Promise<Stored> {
  return stack.nginx.http(`v1/upstreams/${name}`).json();
}

async function hasPeer(port: number, peer: object): Promise<void> {
  await until(`${port} is ${JSON.stringify(peer)}`, async () => {
    return isDeepStrictEqual((await stored('test')).peers[`127.0.0.1:${port}`], peer);
  });
}

test('add, adjust-weight, mark server-down, delete: as upsync’s documentation has them', async (t) => {
  const { consul } = stack;
  // Another upstream, whose name begins alike.
  await consul.store(key(1009, 'test2'), '');
  await consul.store(key(1001), '');
  run(t, { test: { source: 'kv' } });
  await has('test', 1001);
  const { max_fails, fail_timeout } = await stored('test');
  assert.deepEqual([max_fails, fail_timeout], [2, 10], 'the defaults of the layout');
  await consul.store(key(1002), '{"weight":1, "max_fails":2, "fail_timeout":10}');
  await has('test', 1001, 1002);
  await hasPeer(1001, {});
  await hasPeer(1002, { weight: 1, max_fails: 2, fail_timeout: 10 });
  await consul.store(key(1002), '{"weight":2, "max_fails":2, "fail_timeout":10}');
  await hasPeer(1002, { weight: 2, max_fails: 2, fail_timeout: 10 });
  await consul.store(key(1002), '{"weight":2, "max_fails":2, "fail_timeout":10, "down":1}');
  await hasPeer(1002, { weight: 2, max_fails: 2, fail_timeout: 10, down: true });
  assert.equal((await live(stack.nginx)).upstreams.test?.peers['127.0.0.1:1002']?.state, 'down');
  await consul.drop(key(1001));
  await has('test', 1002);
});

test('an upstream’s own max_fails wins over that of the layout', async (t) => {
  await stack.consul.store(key(1001), '');
  run(t, { test: { source: 'kv', max_fails: 5 } });
  await has('test', 1001);
  const { max_fails, fail_timeout } = await stored('test');
  assert.deepEqual([max_fails, fail_timeout], [5, 10]);
});

test('a bad key and a bad value are named once, and take nothing with them', async (t) => {
  const { consul } = stack;
  await consul.store('upstreams/test/', '');
  await consul.store('upstreams/test/web.example:80', '');
  await consul.store(key(1001), '{"weight":"heavy", "backup":1}');
  await consul.store(key(1002), '{"weight":2');
  const agent = run(t, { test: { source: 'kv' } });
  await has('test', 1001, 1002);
  await hasPeer(1001, { backup: true });
  await consul.store(key(1003), '');
  await has('test', 1001, 1002, 1003);
  const { messages } = agent;
  assert.deepEqual(
    messages.filter((line) => / left out: | not used: /.test(line)),
    [
      `test: not used: ${key(1001)}: weight: "heavy" is not an integer from 0 to 65535; ` +
        `${key(1002)}: "{\\"weight\\":2" is not a JSON object`,
      'test: left out: upstreams/test/web.example:80: "web.example:80" is not an address: a.b.c.d:port or [v6]:port',
    ],
  );
  await consul.store(key(1003), '{"down":"maybe"}');
  await says(agent, /^test: not used: .*1003: down: "maybe" is not true or false$/);
  assert.equal(count(agent, /heavy/), 1);
});

test('a prefix that is emptied is held, confirmed and believed; keys that cannot be used change nothing', async (t) => {
  const { consul } = stack;
  await consul.store(key(1001), '');
  await consul.store(key(1002, 'api'), '');
  const agent = run(t, {
    test: { source: 'kv', hold_empty: '2s' },
    api: { source: 'kv' },
  });
  await has('test', 1001);
  await consul.store('upstreams/test/x', '');
  await consul.drop(key(1001));
  await says(agent, /^test: none of 1 peers in KV can be used: upstreams\/test\/x: /);
  await has('test', 1001);
  await consul.drop('upstreams/test/x');
  const gone = Date.now();
  await says(agent, /^test: Consul shows no instance; the last peers stay for 2 s$/);
  await has('test');
  assert(Date.now() - gone >= 1900, 'held for two seconds');
  await says(agent, /^test: no instance is left; 1 held peers removed$/);
  await consul.store(key(1003), '');
  await has('test', 1003);
});

test('a document in one key, and one that is broken for a while', async (t) => {
  const { consul } = stack;
  await consul.store(
    'upstreams/doc',
    '["127.0.0.1:1001", {"address":"127.0.0.1:1002","weight":3}]',
  );
  const agent = run(t, { test: { source: 'kv', key: 'upstreams/doc' } });
  await has('test', 1001, 1002);
  await hasPeer(1002, { weight: 3 });
  assert.equal((await stored('test')).max_fails, undefined, 'a default of the other layout');
  await consul.store('upstreams/doc', '["127.0.0.1:1001",');
  await says(
    agent,
    /^test: none of 1 peers in KV can be used: upstreams\/doc: .* is not peers by address/,
  );
  await has('test', 1001, 1002);
  await consul.store('upstreams/doc', '{"peers":{"127.0.0.1:1003":{"backup":true}}}');
  await has('test', 1003);
  await consul.drop('upstreams/doc');
  await says(agent, /^test: Consul shows no instance/);
  assert.deepEqual(await peers(stack.nginx, 'test'), ['127.0.0.1:1003']);
});

test('joined: KV says who and with what, health whether', async (t) => {
  const { consul } = stack;
  for (const port of [1001, 1002, 1003]) {
    const weights = { Passing: 9, Warning: 9 };
    const instance = { name: 'web', id: `web-${port}`, address: '127.0.0.1', port };
    await consul.register({ ...instance, weights, meta: { zone: 'a' } });
    t.after(() => consul.deregister(`web-${port}`));
  }
  await consul.store(key(1001), '{"weight":4}');
  await consul.store(key(1002), '');
  await consul.store(key(1004), '');
  const agent = run(t, { test: { source: 'kv', health: 'web', hold_empty: 1 }, web: {} });
  await has('test', 1001, 1002);
  await hasPeer(1001, { id: 'web-1001', zone: 'a', weight: 4 });
  await says(agent, /^test: left out: 127\.0\.0\.1:1004: no instance of web has this address$/);
  await consul.health('web-1001', 'critical');
  await has('test', 1002);
  await consul.store(key(1003), '');
  await has('test', 1002, 1003);
  await consul.health('web-1001', 'passing');
  await has('test', 1001, 1002, 1003);
  await consul.store(key(1001), '{"weight":5}');
  await hasPeer(1001, { id: 'web-1001', zone: 'a', weight: 5 });
  // All that KV has are ill, and the rest of the service is well: a panic of these alone.
  await consul.drop(key(1003));
  await consul.health('web-1001', 'critical');
  await has('test', 1002);
  await consul.health('web-1002', 'critical');
  await has('test', 1001, 1002);
  await consul.drop('upstreams/test/', true);
  await says(agent, /^test: Consul shows no instance; the last peers stay for 1 s$/);
  await has('test');
});

test('sync and check ask KV too', async (t) => {
  const { consul, nginx } = stack;
  t.after(() => consul.drop('upstreams/', true));
  await consul.store(key(1001), '{"weight":2}');
  await consul.store('upstreams/test/x', '');
  const upstreams = { test: { source: 'kv' }, none: { source: 'kv', prefix: 'no/such' } };
  const file = stack.configure({ upstreams });
  const checked = await stack.run('check', '-c', file);
  assert.match(checked.stdout, /\ntest +kv upstreams\/test\/ +2 peers in KV, 1 malformed\n/);
  assert.match(checked.stdout, /\nnone +kv no\/such\/ +0 peers in KV\n/);
  const { code, stderr } = await stack.run('sync', '-c', file);
  assert.equal(code, 1);
  assert.match(stderr, /none: kv no\/such\/: 0 peers in KV; --allow-empty takes it for empty/);
  assert.deepEqual(await peers(nginx, 'test'), ['127.0.0.1:1001']);
});

const refused: [upstream: object, fault: string][] = [
  [
    { prefix: 'a/', key: 'b' },
    'key: "b" is not to be given beside prefix: there is one or the other',
  ],
  [{ prefix: '/a' }, 'prefix: "/a" is not a key of Consul'],
  [{ prefix: 'a/../b' }, 'prefix: "a/../b" is not a key of Consul'],
  [{ key: '' }, 'key: "" is not a key of Consul'],
  [{ service: 'web' }, 'service: not a key that can be set here'],
  [{ health: { min_health: 'passing' } }, 'health.service: missing'],
  [{ health: { service: 'web', weight: 2 } }, 'health.weight: not a key that can be set here'],
];

test('what cannot be said of KV is refused, and named', async () => {
  for (const [upstream, fault] of refused) {
    const file = stack.configure({ upstreams: { test: { source: 'kv', ...upstream } } });
    const { code, stderr } = await stack.run('check', '--offline', '-c', file);
    assert.equal(code, 2);
    assert(stderr.startsWith(`reloadless: ${file}:1: upstreams.test.${fault}`), stderr);
  }
});
