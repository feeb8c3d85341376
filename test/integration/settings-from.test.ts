// Settings out of Consul: of a peer from its instance's meta and tags, of an
// upstream from its instances' meta, and which of several that say so counts.
import assert from 'node:assert/strict';
import { after, before, type TestContext, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import type { Agent } from '../stack/agent.ts';
import type { Instance } from '../stack/consul.ts';
import { until } from '../stack/process.ts';
import { type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});
after(() => stack.stop());

function run(t: TestContext, upstreams: object): Agent {
  const agent = stack.agent('-c', stack.configure({ upstreams }));
  t.after(() => agent.stop());
  return agent;
}

async function register(t: TestContext, port: number, more: Partial<Instance>): Promise<void> {
  const id = `web-${port}`;
  const weights = { Passing: 9, Warning: 3 };
  await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port, weights, ...more });
  t.after(() => stack.consul.deregister(id));
}

interface Stored {
  balance?: string;
  peers?: Record<string, object>;
}

async function stored(name: string): Promise<Stored> {
  const { upstreams }: { upstreams: Record<string, Stored> } = await stack.nginx
    .http('v1/upstreams')
    .json();
  return upstreams[name] ?? {};
}

async function hasPeer(name: string, port: number, peer: object): Promise<void> {
  const id = `web-${port}`;
  await until(`${name} has ${id} with ${JSON.stringify(peer)}`, async () => {
    const { peers = {} } = await stored(name);
    return isDeepStrictEqual(peers[`127.0.0.1:${port}`], { ...peer, id });
  });
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

test('all of a peer’s settings come from meta, in either spelling', async (t) => {
  await register(t, 1001, {
    meta: {
      'reloadless-weight': '5',
      'reloadless-max-fails': '4',
      reloadless_fail_timeout: '30s',
      'reloadless-max_conns': '100',
      'reloadless-slow-start': '1m',
      'reloadless-backup': 'true',
      'reloadless-zone': 'a',
      'reloadless-drain': '1',
      'reloadless-down': '0',
      zone: 'b',
      version: '2',
    },
  });
  const all = { weight: 5, max_fails: 4, fail_timeout: 30, max_conns: 100, slow_start: 60 };
  run(t, { web: {} });
  await hasPeer('web', 1001, { ...all, backup: true, zone: 'a', drain: true, down: false });
  await register(t, 1001, { meta: { zone: 'b', backup: 'true' } });
  await hasPeer('web', 1001, { weight: 9, zone: 'b', backup: true });
});

test('the tags of upsync count where settings_from says so, and meta goes before them', async (t) => {
  const tags = ['weight=2', 'max_fails=3', 'fail_timeout=20s', 'down', 'version=7', 'reloadless'];
  await register(t, 1001, { tags, meta: { 'reloadless-weight': '6' } });
  await register(t, 1002, { tags: ['weight=4', 'backup=1', 'down=0'] });
  const web = { service: 'web' };
  run(t, {
    usual: web,
    tags: { ...web, settings_from: ['tags'] },
    both: { ...web, settings_from: ['tags', 'meta'] },
    none: { ...web, settings_from: [] },
  });
  const tagged = { max_fails: 3, fail_timeout: 20, down: true };
  await hasPeer('usual', 1001, { weight: 6 });
  await hasPeer('usual', 1002, { weight: 9 });
  await hasPeer('tags', 1001, { weight: 2, ...tagged });
  await hasPeer('tags', 1002, { weight: 4, backup: true, down: false });
  await hasPeer('both', 1001, { weight: 6, ...tagged });
  await hasPeer('none', 1001, { weight: 9 });
  // Consul's Weights are below both.
  await stack.consul.health('web-1001', 'warning');
  await hasPeer('none', 1001, { weight: 3 });
  await hasPeer('both', 1001, { weight: 6, ...tagged });
});

test('a bad value is named once, and the rest is used', async (t) => {
  const meta = {
    'reloadless-weight': 'heavy',
    'reloadless-max-conns': '7',
    'reloadless-wieght': '2',
  };
  await register(t, 1001, { meta, tags: ['max_fails=many', 'fail_timeout=5'] });
  const agent = run(t, { web: { settings_from: ['meta', 'tags'] } });
  await hasPeer('web', 1001, { weight: 9, max_conns: 7, fail_timeout: 5 });
  await register(t, 1002, {});
  await hasPeer('web', 1002, { weight: 9 });
  await stack.consul.deregister('web-1002');
  await register(t, 1003, { meta: { 'reloadless-drain': 'soon' } });
  await hasPeer('web', 1003, { weight: 9 });
  await says(agent, /soon/);
  const name = 'web-1001 on local';
  assert.deepEqual(
    agent.messages.filter((line) => line.startsWith('web: not used: ')),
    [
      `web: not used: ${name}: tag "max_fails=many": max_fails: "many" is not an integer from 0 to 65535; ` +
        `${name}: meta reloadless-weight: weight: "heavy" is not an integer from 0 to 65535; ` +
        `${name}: meta reloadless-wieght: wieght: not a key that can be set here`,
      'web: not used: web-1003 on local: meta reloadless-drain: drain: "soon" is not true or false',
    ],
  );
});

test('balance: reloadless.yml, then meta, of which the lowest ID has it', async (t) => {
  const balance = (value: string) => ({ meta: { 'reloadless-balance': value } });
  await register(t, 1001, balance('ewma'));
  const web = { service: 'web' };
  const agent = run(t, {
    web: {},
    own: { ...web, balance: 'random' },
    hashed: { ...web, hash_key: '$uri' },
  });
  const is = (name: string, expected: string | undefined) =>
    until(`${name} is ${expected}`, async () => {
      const { balance, peers } = await stored(name);
      return peers !== undefined && balance === expected;
    });
  await is('web', 'ewma');
  await is('own', 'random');
  await register(t, 1002, balance('least_conn'));
  await says(agent, /^web: not used: balance: instances say ewma, least_conn, and ewma is used$/);
  await is('web', 'ewma');
  // Nothing but this changes, and it arrives.
  await register(t, 1001, {});
  await is('web', 'least_conn');
  await register(t, 1002, balance('hash'));
  await is('hashed', 'hash');
  await is('web', undefined);
  await says(agent, /^web: not used: balance hash: the upstream has no hash_key$/);
  await register(t, 1002, balance('best'));
  await says(
    agent,
    /^web: not used: web-1002 on local: meta reloadless-balance: "best" is not one of/,
  );
  await is('own', 'random');
});
