// What people know from consul-template: quiescence, a command after a change, a pid file.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Agent, reloadless } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { peers, type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
});
after(() => stack.stop());

function run(t: TestContext, config: object): Agent {
  const agent = stack.agent('-c', stack.configure(config));
  t.after(() => agent.stop());
  return agent;
}

async function register(t: TestContext, name: string, port: number): Promise<void> {
  const id = `${name}-${port}`;
  await stack.consul.register({ name, id, address: '127.0.0.1', port });
  t.after(() => stack.consul.deregister(id));
}

/** The ports of its peers, in order. */
async function ports(name: string): Promise<string> {
  return (await peers(stack.nginx, name))?.map((peer) => peer.split(':')[1]).join() ?? '';
}

test('with settle new peers wait for more of them; what leaves does not, nor what an upstream starts with', async (t) => {
  await register(t, 'web', 1001);
  await register(t, 'api', 2001);
  const agent = run(t, {
    settle: { min: '1h', max: '1h' },
    upstreams: { web: {}, api: { settle: { min: 0, max: 0 } } },
  });
  await until('the first peer is there', async () => (await ports('web')) === '1001');
  await register(t, 'web', 1002);
  await until('the agent has seen it', () => agent.messages.includes('web: +127.0.0.1:1002'));
  // What is of another upstream takes its own way, and takes nothing along.
  await register(t, 'api', 2002);
  await until('the other one is pushed', async () => (await ports('api')) === '2001,2002');
  assert.equal(await ports('web'), '1001');
  await stack.consul.deregister('web-1001');
  await until('it has left, and the new one is there', async () => (await ports('web')) === '1002');
});

test('with settle a burst ends when it rests', async (t) => {
  await register(t, 'rest', 1001);
  run(t, { upstreams: { rest: { settle: { min: '300ms', max: '1h' } } } });
  await until('the first peer is there', async () => (await ports('rest')) === '1001');
  const seen = new Set<string>();
  const looking = (async () => {
    while (!seen.has('1001,1002,1003,1004')) {
      seen.add(await ports('rest'));
      await sleep(5);
    }
  })();
  for (const port of [1002, 1003, 1004]) await register(t, 'rest', port);
  await looking;
  assert.deepEqual([...seen].sort(), ['1001', '1001,1002,1003,1004']);
});

test('on_change runs a command after each applied change, and one that hangs delays no push', async (t) => {
  const log = join(stack.folder, 'changes.log');
  const script = `printf '%s %s\\n' "$RELOADLESS_UPSTREAMS" "$RELOADLESS_CHANGES" >> ${log}; exec sleep 1000`;
  await register(t, 'told', 1001);
  const agent = run(t, { upstreams: { told: {} }, on_change: { command: ['sh', '-c', script] } });
  await until('it has run', () => existsSync(log) && readFileSync(log, 'utf8').endsWith('\n'));
  // The upstreams of the tests before are removed with the first push.
  const [, names = '', changes = ''] = /^([\w ]+) (.*)\n$/.exec(readFileSync(log, 'utf8')) ?? [];
  assert.ok(names.split(' ').includes('told'), names);
  const [{ target, patch }] = JSON.parse(changes);
  assert.equal(target, stack.nginx.admin);
  assert.deepEqual(Object.keys(patch.upstreams.told.peers), ['127.0.0.1:1001']);
  await register(t, 'told', 1002);
  await until('the push goes on', async () => (await ports('told')) === '1001,1002');
  await agent.stop();
  assert.equal(agent.exitCode, 0);
});

test('the pid file is there while the agent runs, over one that was left', async (t) => {
  const path = join(stack.folder, 'agent.pid');
  writeFileSync(path, '1\n');
  const agent = run(t, { upstreams: { web: {} }, pid_file: path });
  await until('it is written', () => readFileSync(path, 'utf8') === `${agent.pid}\n`);
  await agent.stop();
  assert.equal(existsSync(path), false);

  const other = run(t, { upstreams: { web: {} }, pid_file: path });
  await until('it is written again', () => existsSync(path));
  writeFileSync(path, '1\n');
  await other.stop();
  assert.equal(readFileSync(path, 'utf8'), '1\n');
});

test('a pid file that cannot be written is 2 and one line', async () => {
  const file = stack.configure({ upstreams: { web: {} }, pid_file: '/no/such/agent.pid' });
  const { code, stderr } = await reloadless(['run', '-c', file]);
  assert.equal(code, 2);
  assert.match(stderr, /^reloadless: pid_file: .*ENOENT.*\n$/);
});
