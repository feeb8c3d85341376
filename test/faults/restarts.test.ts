// Parts that die and come back, each alone and together.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { loadSnapshot } from '../../agent/snapshot/file.ts';
import type { Agent } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { until } from '../stack/process.ts';
import { ask, live, type Stack, startStack } from '../stack/stack.ts';
import { traffic } from '../stack/traffic.ts';

interface Scene {
  stack: Stack;
  backend: Backend;
  agent: Agent;
}

/** A stack whose upstream `web` is served by the backend `one`, with its snapshot written. */
async function scene(t: TestContext): Promise<Scene> {
  const stack = await startStack();
  t.after(() => stack.stop());
  const backend = await start(t, 'one');
  await register(stack, backend);
  const agent = stack.agent('--service', 'web');
  await served(stack, ['one']);
  await until('the snapshot', () => loadSnapshot(stack.nginx.snapshot) !== undefined);
  return { stack, backend, agent };
}

async function start(t: TestContext, name: string): Promise<Backend> {
  const backend = await Backend.start(name);
  t.after(() => backend.stop());
  return backend;
}

async function register(stack: Stack, backend: Backend): Promise<void> {
  const { name: id, port } = backend;
  await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port });
  // Consul keeps the last update of a TTL check over a restart; without one it begins as critical.
  await stack.consul.health(id, 'passing');
}

/**
 * Waits until exactly these backends answer, each to some of eight requests. They
 * go out together: in turns with those of `traffic`, all would get the same peer.
 */
async function served(stack: Stack, names: string[]): Promise<void> {
  await until(`served by ${names.join(' and ')}`, async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask(stack.nginx, 'web')));
    return [...new Set(answers)].sort().join() === names.join();
  });
}

/** Gives Consul's log so much more that reading it takes a while. */
async function lengthenLog({ consul }: Stack): Promise<void> {
  const json = Array.from({ length: 64 }, (_, i) => ({ KV: { Verb: 'set', Key: `${i}` } }));
  for (let i = 0; i < 40; i += 1) {
    await Promise.all(Array.from({ length: 25 }, () => consul.http.put('txn', { json })));
  }
}

test('nginx killed while Consul is away serves its first request from the snapshot', async (t) => {
  const { stack } = await scene(t);
  await stack.consul.stop('SIGKILL');
  await stack.nginx.kill();
  await stack.nginx.up();
  assert.equal(await ask(stack.nginx, 'web'), 'one');
});

test('nginx, Consul and the agent killed: the first request is served from the snapshot', async (t) => {
  const { stack, agent } = await scene(t);
  await agent.stop('SIGKILL');
  await stack.consul.stop('SIGKILL');
  await stack.nginx.kill();
  await stack.nginx.up();
  assert.equal(await ask(stack.nginx, 'web'), 'one');
  assert.equal((await live(stack.nginx)).source, 'snapshot');
});

test('nginx restarted without a snapshot has the whole table back within 2 s', async (t) => {
  const { stack } = await scene(t);
  const two = await start(t, 'two');
  await register(stack, two);
  await served(stack, ['one', 'two']);
  await stack.nginx.kill();
  rmSync(stack.nginx.snapshot);
  await stack.nginx.up();
  const began = Date.now();
  await until('peers', async () => {
    return Object.keys((await live(stack.nginx)).upstreams.web?.peers ?? {}).length === 2;
  });
  assert(Date.now() - began < 2000, `${Date.now() - began} ms`);
  await served(stack, ['one', 'two']);
});

test('the agent killed and started while Consul is away: traffic never stops', async (t) => {
  const { stack, agent } = await scene(t);
  const two = await start(t, 'two');
  const stop = traffic(t, stack);
  await agent.stop('SIGKILL');
  await register(stack, two);
  await stack.consul.stop('SIGKILL');
  agent.up();
  await until('the agent notices', () => agent.messages.some((m) => m.includes('ECONNREFUSED')));
  assert.equal(await ask(stack.nginx, 'web'), 'one');
  await stack.consul.up();
  await served(stack, ['one', 'two']);
  assert.deepEqual((await stop()).wrong, []);
});

test('Consul restarted under the agent: no request fails, and changes go on arriving', async (t) => {
  const { stack } = await scene(t);
  const two = await start(t, 'two');
  const stop = traffic(t, stack);
  await stack.consul.stop('SIGKILL');
  await stack.consul.up();
  await register(stack, two);
  await served(stack, ['one', 'two']);
  assert.deepEqual((await stop()).wrong, []);
});

test('Consul reading its log after a restart does not bring back who has left', async (t) => {
  const { stack } = await scene(t);
  const [two, three] = [await start(t, 'two'), await start(t, 'three')];
  await register(stack, two);
  await served(stack, ['one', 'two']);
  await lengthenLog(stack);
  await stack.consul.deregister('two');
  await served(stack, ['one']);
  const { version } = await live(stack.nginx);
  await stack.consul.stop('SIGKILL');
  await stack.consul.up();
  await register(stack, three);
  await served(stack, ['one', 'three']);
  assert.equal((await live(stack.nginx)).version, version + 1);
});

test('nginx restarted with an empty table while Consul is away gets it from the agent', async (t) => {
  const { stack, agent } = await scene(t);
  await agent.stop('SIGKILL');
  await stack.consul.stop('SIGKILL');
  await stack.nginx.kill();
  const saved = loadSnapshot(stack.nginx.snapshot);
  assert.deepEqual(Object.keys(saved?.document.upstreams ?? {}), ['web']);
  // The agent may read the snapshot; this nginx finds none where it looks.
  agent.up();
  await until('the agent is up', () => agent.messages.some((m) => m.startsWith('snapshot of')));
  rmSync(stack.nginx.snapshot);
  await stack.nginx.up();
  await served(stack, ['one']);
});

test('a snapshot never replaces what a living nginx has', async (t) => {
  const { stack, agent } = await scene(t);
  await agent.stop('SIGKILL');
  await stack.consul.stop('SIGKILL');
  const two = await start(t, 'two');
  const newer = { owner: 'reloadless', peers: { [two.address]: {} } };
  await stack.nginx.http.put('v1/upstreams/web', { json: newer });
  agent.up();
  await until('the agent is up', () => agent.messages.some((m) => m.includes('connected')));
  await new Promise((resolve) => setTimeout(resolve, 1500));
  await served(stack, ['two']);
});

test('a damaged snapshot is said, left for a person, and goes on without it', async (t) => {
  const { stack, agent } = await scene(t);
  await agent.stop('SIGKILL');
  writeFileSync(stack.nginx.snapshot, '{"format":1}\ngarbage\n');
  agent.up();
  await until('the agent says it', () => agent.messages.some((m) => m.includes('is not used')));
  await served(stack, ['one']);
  const two = await start(t, 'two');
  await register(stack, two);
  await until('a good snapshot', () => {
    const peers = loadSnapshot(stack.nginx.snapshot)?.document.upstreams.web?.peers ?? {};
    return Object.keys(peers).length === 2;
  });
  assert.throws(() => loadSnapshot(`${stack.nginx.snapshot}.damaged`));
});

test('a snapshot that cannot be written stops nothing, is said once and tried again', async (t) => {
  const { stack, agent } = await scene(t);
  // A folder in its place stops even root.
  rmSync(stack.nginx.snapshot);
  mkdirSync(stack.nginx.snapshot);
  const two = await start(t, 'two');
  await register(stack, two);
  await served(stack, ['one', 'two']);
  await until('the agent says it', () => agent.messages.some((m) => /snapshot .*EISDIR/.test(m)));
  await new Promise((resolve) => setTimeout(resolve, 2000));
  rmdirSync(stack.nginx.snapshot);
  await until('it is written', () => {
    const peers = loadSnapshot(stack.nginx.snapshot)?.document.upstreams.web?.peers ?? {};
    return Object.keys(peers).length === 2;
  });
  await until('and said', () => agent.messages.some((m) => m.endsWith('can be written again')));
  // Error is level 50; the further failures are told at debug.
  const errors = agent.log.match(/"level":50.*is not written/g) ?? [];
  assert.equal(errors.length, 1);
});

test('a FIFO in the place of the snapshot holds up neither the agent nor nginx', async (t) => {
  const { stack, agent } = await scene(t);
  await agent.stop();
  await stack.nginx.stop();
  rmSync(stack.nginx.snapshot);
  execFileSync('mkfifo', [stack.nginx.snapshot]);
  agent.up();
  await stack.nginx.up();
  await served(stack, ['one']);
  assert.ok(agent.messages.some((m) => /snapshot .* is not a regular file/.test(m)));
  await until('a snapshot', () => loadSnapshot(stack.nginx.snapshot) !== undefined);
});

test('OpenResty away at the start gets all once it is there', async (t) => {
  const stack = await startStack();
  t.after(() => stack.stop());
  const backend = await start(t, 'one');
  await register(stack, backend);
  await stack.nginx.stop();
  const agent = stack.agent('--service', 'web');
  await until('the agent says it', () => {
    return agent.messages.some((m) => /^OpenResty at .*ECONNREFUSED.*: trying again$/.test(m));
  });
  await stack.nginx.up();
  await served(stack, ['one']);
});
