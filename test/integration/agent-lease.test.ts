// Two agents of one owner: of the same configuration they work side by side, of
// different ones the second waits and says so, and nothing is undone.
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { loadSnapshot } from '../../agent/snapshot/file.ts';
import { Agent } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { until } from '../stack/process.ts';
import { ask, live, peers, type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
let backend: Backend;
before(async () => {
  stack = await startStack();
  backend = await Backend.start('web');
  for (const name of ['web', 'api']) {
    await stack.consul.register({ name, id: name, address: '127.0.0.1', port: backend.port });
  }
});
after(async () => {
  await stack.stop();
  await backend.stop();
});

async function hasLease({ pid }: Agent): Promise<void> {
  await until('the agent has the lease', async () => {
    return (await live(stack.nginx)).agents.reloadless?.pid === pid;
  });
}

/** An agent with a file of its own that ends with the test. */
function run(t: TestContext, upstreams: object): Agent {
  const agent = stack.agent('-c', stack.configure({ upstreams }));
  t.after(() => agent.stop());
  return agent;
}

async function serves(name: string): Promise<void> {
  await until(`${name} serves`, async () => (await ask(stack.nginx, name)) === 'web');
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

const refused = /another agent with owner reloadless and another configuration.*nothing is pushed/;

test('the second of two configurations waits, says so once and takes over', async (t) => {
  const first = run(t, { web: {} });
  await serves('web');
  const second = run(t, { api: {} });
  await says(second, refused);
  const { version } = await live(stack.nginx);
  const answers = new Set<string | number>();
  const until2s = Date.now() + 2000;
  while (Date.now() < until2s) answers.add(await ask(stack.nginx, 'web'));
  assert.deepEqual([...answers], ['web']);
  const { agents, version: later } = await live(stack.nginx);
  assert.equal(later, version);
  assert.equal(agents.reloadless?.pid, first.pid);
  assert.equal(agents.reloadless?.waiting?.pid, second.pid);
  assert.equal(second.messages.filter((line) => refused.test(line)).length, 1);
  assert.deepEqual(
    first.messages.filter((line) => refused.test(line)),
    [],
  );

  await first.stop();
  await serves('api');
  await says(second, /the other agent has gone: going on/);
  assert.equal((await live(stack.nginx)).agents.reloadless?.pid, second.pid);
});

test('an agent that was killed is waited for no longer than its lease', async (t) => {
  const first = run(t, { web: {} });
  await serves('web');
  await first.stop('SIGKILL');
  const second = run(t, { api: {} });
  await says(second, refused);
  await serves('api');
});

test('agents of one configuration work side by side', async (t) => {
  const [first, second] = [run(t, { web: {} }), run(t, { web: {} })];
  await serves('web');
  await first.stop();
  await stack.consul.register({ name: 'web', id: 'web-2', address: '127.0.0.2', port: 1 });
  t.after(() => stack.consul.deregister('web-2'));
  await until('the other one pushes', async () => (await peers(stack.nginx, 'web'))?.length === 2);
  for (const agent of [first, second]) {
    assert.deepEqual(
      agent.messages.filter((line) => refused.test(line)),
      [],
    );
  }
});

test('another configuration after SIGHUP is the same agent', async (t) => {
  const file = stack.configure({ upstreams: { web: {} } });
  const agent = stack.agent('-c', file);
  t.after(() => agent.stop());
  await says(agent, /connected/);
  stack.configure({ upstreams: { web: {}, api: {} } }, file);
  agent.hup();
  await serves('api');
  assert.deepEqual(
    agent.messages.filter((line) => refused.test(line)),
    [],
  );
});

test('a trial with --service waits beside an agent, and alone removes nothing', async (t) => {
  const agent = run(t, { web: {}, api: {} });
  await hasLease(agent);
  await serves('api');
  const trial = stack.agent('--service', 'web');
  t.after(() => trial.stop());
  await says(trial, refused);
  await agent.stop();
  await says(trial, /the other agent has gone: going on/);
  await hasLease(trial);
  await stack.consul.register({ name: 'web', id: 'web-2', address: '127.0.0.2', port: 1 });
  t.after(() => stack.consul.deregister('web-2'));
  await until('the trial pushes', async () => (await peers(stack.nginx, 'web'))?.length === 2);
  assert.equal((await peers(stack.nginx, 'api'))?.length, 1);
});

test('sync leaves what another configuration has, and fails only where it would change it', async (t) => {
  run(t, { web: {} });
  await until('it has what it wants', async () => {
    return Object.keys((await live(stack.nginx)).upstreams).join() === 'web';
  });
  const saved = () => Object.keys(loadSnapshot(stack.nginx.snapshot)?.document.upstreams ?? {});
  await until('its snapshot has it', () => saved().join() === 'web');
  const same = await stack.run('sync', '-c', stack.configure({ upstreams: { web: {} } }));
  assert.deepEqual([same.code, same.stderr], [0, '']);
  const other = await stack.run('sync', '-c', stack.configure({ upstreams: { api: {} } }));
  assert.equal(other.code, 1);
  assert.match(other.stderr, /another agent with owner reloadless.*nothing was changed/);
  assert.equal(await peers(stack.nginx, 'api'), undefined);
  assert.deepEqual(saved(), ['web']);
  const mine = ['--dry-run', '-c', stack.configure({ owner: 'me', upstreams: { api: {} } })];
  assert.equal((await stack.run('sync', ...mine)).code, 0);
});

test('an nginx that starts anew knows no lease: who takes it there first has it', async (t) => {
  const { consul, nginx } = stack;
  const snapshot = join(stack.folder, 'of-the-agent.snapshot');
  const file = stack.configure({ upstreams: { web: {} }, snapshot });
  const flags = ['--consul', consul.address, '--openresty', nginx.admin, '-c', file];
  const agent = Agent.start(join(stack.folder, 'frozen.log'), flags);
  t.after(() => agent.stop());
  await serves('web');
  const { pid = 0 } = agent;
  process.kill(pid, 'SIGSTOP');
  await nginx.stop();
  rmSync(nginx.snapshot, { force: true });
  await nginx.up();
  const other = { id: 'other', host: 'there', pid: 1, since: 'now' };
  await nginx.http.put('v1/agents/reloadless', { json: other });
  process.kill(pid, 'SIGCONT');
  await says(agent, refused);
  assert.deepEqual((await live(nginx)).upstreams, {});
});
