// Host names among the instances while DNS does not answer, between a real Consul
// and a real nginx. DNS is a fake one: no other is silent on demand.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { Agent, reloadless } from '../stack/agent.ts';
import { checkout } from '../stack/install.mjs';
import { until } from '../stack/process.ts';
import { peers, type Stack, startStack } from '../stack/stack.ts';
import { FakeDns } from '../unit/fake-dns.ts';

let stack: Stack;
let dns: FakeDns;
before(async () => {
  stack = await startStack();
  dns = await FakeDns.start({ 'web.test': '127.0.0.9' });
});
after(async () => {
  dns.stop();
  await stack.stop();
});

function environment(): NodeJS.ProcessEnv {
  const preload = pathToFileURL(join(checkout, 'test/stack/other-dns.mjs'));
  return { NODE_OPTIONS: `--import ${preload}`, RELOADLESS_DNS: dns.address };
}

function run(t: TestContext): Agent {
  const log = join(stack.folder, `${t.name}.log`);
  const agent = Agent.start(log, [...stack.flags, '--service', 'web'], environment());
  t.after(() => agent.stop());
  return agent;
}

async function register(t: TestContext, id: string, address: string, port: number): Promise<void> {
  await stack.consul.register({ name: 'web', id, address, port });
  t.after(() => stack.consul.deregister(id));
}

async function has(...expected: string[]): Promise<void> {
  await until(`web has ${expected}`, async () => {
    return (await peers(stack.nginx, 'web'))?.join() === expected.join();
  });
}

test('peers come and go while DNS is silent about another', async (t) => {
  await register(t, 'a', '127.0.0.1', 1001);
  await register(t, 'b', '127.0.0.1', 1002);
  await register(t, 's', 'a.silent', 1003);
  run(t);
  await has('127.0.0.1:1001', '127.0.0.1:1002');
  await register(t, 's2', 'b.silent', 1003);
  await stack.consul.health('a', 'critical');
  await has('127.0.0.1:1002');
  await register(t, 's3', 'c.silent', 1003);
  await register(t, 'c', '127.0.0.1', 1004);
  await has('127.0.0.1:1002', '127.0.0.1:1004');
  await register(t, 'n', 'web.test', 1005);
  await has('127.0.0.1:1002', '127.0.0.1:1004', '127.0.0.9:1005');
});

test('an agent that starts while DNS is silent keeps what the name was, and ends at once', async (t) => {
  await register(t, 'a', '127.0.0.1', 1001);
  await register(t, 'n', '127.0.0.8', 1005);
  const first = run(t);
  await has('127.0.0.1:1001', '127.0.0.8:1005');
  await first.stop();
  await register(t, 'n', 'n.silent', 1005);
  await register(t, 'b', '127.0.0.1', 1002);
  const second = run(t);
  await has('127.0.0.1:1001', '127.0.0.1:1002', '127.0.0.8:1005');
  await until('the look-up has ended', () =>
    second.messages.some((line) => /^web: keeps 1 addresses: n\.silent: /.test(line)),
  );
  await has('127.0.0.1:1001', '127.0.0.1:1002', '127.0.0.8:1005');
  await stack.consul.deregister('n');
  await has('127.0.0.1:1001', '127.0.0.1:1002');
});

test('a sync waits for the look-ups up to their time-out, and says which name has none', async (t) => {
  await register(t, 'a', '127.0.0.1', 1001);
  await register(t, 'n', 'web.test', 1005);
  await register(t, 's', 'a.silent', 1003);
  const flags = [...stack.flags, '--service', 'web'];
  const done = await reloadless(['sync', ...flags], environment());
  assert.equal(done.code, 0, done.stderr);
  assert.match(done.stderr, /^web: left out: a\.silent: /);
  await has('127.0.0.1:1001', '127.0.0.9:1005');
  const late = await reloadless(['sync', ...flags, '--timeout', '1s'], environment());
  assert.deepEqual([late.code, late.stderr], [1, 'reloadless: not done within 1 s\n']);
});
