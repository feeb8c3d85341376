// Peers that nginx refuses: each is left out alone and said once, whatever else
// changes goes on, and it comes in when it is taken.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Agent } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { until } from '../stack/process.ts';
import { Recorder } from '../stack/recorder.ts';
import { peers, type Stack, startStack } from '../stack/stack.ts';
import { traffic } from '../stack/traffic.ts';

const loopbackOnly = { init: 'allow = { "127.0.0.0/8" },' };

interface Scene {
  stack: Stack;
  a: Backend;
  b: Backend;
  register(id: string, address: string, port: number): Promise<void>;
  /** Waits until `web` has these peers and no other. */
  has(...addresses: string[]): Promise<void>;
}

/** An nginx that takes loopback peers alone, and a service with two good instances. */
async function start(t: TestContext): Promise<Scene> {
  const stack = await startStack(loopbackOnly);
  t.after(() => stack.stop());
  const [a, b] = [await Backend.start('a'), await Backend.start('b')];
  t.after(() => Promise.all([a.stop(), b.stop()]));
  const register = (id: string, address: string, port: number) =>
    stack.consul.register({ name: 'web', id, address, port });
  await register('a', '127.0.0.1', a.port);
  await register('b', '127.0.0.1', b.port);
  const has = async (...addresses: string[]) => {
    const expected = addresses.sort().join(' ');
    await until(
      expected,
      async () => (await peers(stack.nginx, 'web'))?.join(' ') === expected,
      40,
    );
  };
  return { stack, a, b, register, has };
}

function pause(seconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** What the log has said, debug lines left out. */
function said(agent: Agent, what: RegExp): string[] {
  return agent.log
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as { level: number; msg: string })
    .filter(({ level, msg }) => level >= 30 && what.test(msg))
    .map(({ msg }) => msg);
}

test('a bad instance is left out alone: another leaves at once', async (t) => {
  const { stack, a, b, register, has } = await start(t);
  const agent = stack.agent('--service', 'web');
  await has(a.address, b.address);
  const stop = traffic(t, stack);
  await register('bad', '10.0.0.1', 80);
  await until('it is said', () => said(agent, /10\.0\.0\.1:80/).length > 0);
  await stack.consul.deregister('a');
  await has(b.address);
  await register('a', '127.0.0.1', a.port);
  await has(a.address, b.address);

  // Tried again meanwhile, and not said again.
  await pause(4);
  const name = stack.nginx.admin;
  const why = 'the address is "10.0.0.1:80": expected an address within 127.0.0.0/8';
  assert.deepEqual(said(agent, /left out/), [
    `web: left out by OpenResty at ${name}: 10.0.0.1:80 (${why})`,
  ]);
  await stack.consul.deregister('bad');
  await until('it is said', () => said(agent, /web is whole again$/).length === 1);
  const { wrong, count } = await stop();
  assert.deepEqual(wrong, []);
  assert.ok(count > 0);
});

test('the address of the admin endpoint is left out alone', async (t) => {
  const { stack, a, b, register, has } = await start(t);
  await register('admin', '127.0.0.1', stack.nginx.adminPort);
  const agent = stack.agent('--service', 'web');
  await has(a.address, b.address);
  await stack.consul.deregister('b');
  await has(a.address);
  const lines = said(agent, /left out/);
  assert.equal(lines.length, 1, lines.join('\n'));
  assert.match(lines[0] ?? '', /a peer other than the admin API itself/);
});

test('what is refused comes in when another configuration of nginx takes it', async (t) => {
  const { stack, a, b, register, has } = await start(t);
  await register('bad', '10.0.0.1', 80);
  const agent = stack.agent('--service', 'web');
  await has(a.address, b.address);
  await until('it is said', () => said(agent, /left out/).length > 0);
  const path = join(stack.folder, 'nginx', 'nginx.conf');
  writeFileSync(path, readFileSync(path, 'utf8').replace('"127.0.0.0/8"', '"0.0.0.0/0"'));
  stack.nginx.hup();
  await has(a.address, b.address, '10.0.0.1:80');
  await until('it is said', () => said(agent, /web is whole again$/).length === 1);
});

/** Registers so many instances, every other one where nginx takes none. */
async function registerMany({ consul }: Stack, count: number): Promise<void> {
  const service = (i: number) => ({
    Service: {
      Verb: 'set',
      Node: 'far',
      Service: {
        ID: `many-${i}`,
        Service: 'web',
        Address: `${i % 2 === 0 ? 127 : 10}.1.${i >> 8}.${i & 255}`,
        Port: 80,
      },
    },
  });
  const node = { Node: { Verb: 'set', Node: { Node: 'far', Address: '127.0.0.1' } } };
  await consul.http.put('txn', { json: [node] });
  // Consul takes 64 operations at once.
  for (let from = 0; from < count; from += 64) {
    const ids = Array.from({ length: Math.min(64, count - from) }, (_, i) => from + i);
    await consul.http.put('txn', { json: ids.map(service) });
  }
}

test('500 bad of 1,000 take few requests, and few lines', async (t) => {
  const { stack, a, b } = await start(t);
  await registerMany(stack, 1000);
  const recorder = await Recorder.start(stack.nginx.adminPort);
  t.after(() => recorder.stop());
  const agent = Agent.start(join(stack.folder, 'agent.log'), [
    ...['--consul', stack.consul.address, '--openresty', recorder.address],
    ...['--snapshot', stack.nginx.snapshot, '--service', 'web'],
  ]);
  t.after(() => agent.stop());
  const patches = () => recorder.writes.filter(({ method }) => method === 'PATCH');
  await until('the good ones', async () => (await peers(stack.nginx, 'web'))?.length === 502, 40);
  await until('it is said', () => said(agent, /left out/).length > 0);
  assert.ok(patches().length <= 6, `${patches().length} patches`);

  const before = patches().length;
  await stack.consul.deregister('a');
  await until('a is gone', async () => !(await peers(stack.nginx, 'web'))?.includes(a.address));
  await pause(5);
  // One that takes a out, and those that try the bad ones again.
  const since = patches().slice(before);
  assert.ok(since.length <= 8, `${since.length} patches`);
  assert.ok((await peers(stack.nginx, 'web'))?.includes(b.address));
  const [line = '', ...more] = said(agent, /left out/);
  assert.deepEqual(more, []);
  assert.match(line, /^web: left out by .* and 490 more$/);
  assert.ok(line.length < 2000, line);
});

test('sync pushes the rest, says what is left out, and fails', async (t) => {
  const { stack, a, b, register, has } = await start(t);
  assert.equal((await stack.run('sync', '--service', 'web')).code, 0);
  await register('bad', '10.0.0.1', 80);
  await stack.consul.deregister('a');
  const { code, stdout, stderr } = await stack.run('sync', '--service', 'web');
  assert.equal(code, 1);
  const name = stack.nginx.admin;
  assert.equal(stdout, `${name}: changed web\n`);
  const why = 'the address is "10.0.0.1:80": expected an address within 127.0.0.0/8';
  assert.equal(stderr, `reloadless: web: left out by OpenResty at ${name}: 10.0.0.1:80 (${why})\n`);
  await has(b.address);

  await register('a', '127.0.0.1', a.port);
  await stack.consul.deregister('b');
  await stack.run('sync', '--service', 'web');
  await has(a.address);
});
