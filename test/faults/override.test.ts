// A person's word stands while all around it moves: the agent pushes changes as
// fast as Consul gives them, nginx is reloaded, workers are killed, the agent is
// killed and starts again.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Backend } from '../stack/backend.ts';
import { until } from '../stack/process.ts';
import { ask, startStack } from '../stack/stack.ts';

test('a peer that a person took out is never asked after the answer', async (t) => {
  const stack = await startStack();
  t.after(() => stack.stop());
  const { nginx, consul } = stack;
  const [one, other] = [await Backend.start('one'), await Backend.start('other')];
  for (const backend of [one, other]) {
    t.after(() => backend.stop());
    const { name: id, port } = backend;
    await consul.register({ name: 'web', id, address: '127.0.0.1', port });
    await consul.health(id, 'passing');
  }
  let agent = stack.agent('--service', 'web');
  await until('both serve', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => ask(nginx, 'web')));
    return new Set(answers).size === 2 && !answers.includes(503);
  });

  let isOver = false;
  let changes = 0;
  const churn = (async () => {
    while (!isOver) {
      changes += 1;
      // Of a third one that nobody reaches, and of the peer itself.
      await consul.register({ name: 'web', id: 'dead', address: '127.0.0.1', port: 1 });
      await consul.health('dead', changes % 2 === 0 ? 'passing' : 'critical');
      await consul.health('one', changes % 3 === 0 ? 'warning' : 'passing');
    }
  })();
  const seen = new Map<string | number, number>();
  const load = async () => {
    while (!isOver) {
      const answer = await ask(nginx, 'web').catch(() => 'cut');
      seen.set(answer, (seen.get(answer) ?? 0) + 1);
    }
  };

  const overrides = { [`127.0.0.1:${one.port}`]: { down: true, note: 'disk swap' } };
  await nginx.http.patch('v1/upstreams/web', { json: { overrides } });
  const loads = [load(), load(), load(), load()];
  const pause = () => new Promise((resolve) => setTimeout(resolve, 700));
  for (let round = 0; round < 3; round += 1) {
    await pause();
    process.kill(nginx.pid as number, 'SIGHUP');
    await pause();
    process.kill(nginx.workers()[0] as number, 'SIGKILL');
    await pause();
    await agent.stop('SIGKILL');
    agent = stack.agent('--service', 'web');
  }
  await pause();
  isOver = true;
  await Promise.all([churn, ...loads]);
  assert.ok(changes > 20, `${changes} changes`);
  assert.equal(seen.get('one'), undefined, JSON.stringify([...seen]));
  assert.ok((seen.get('other') ?? 0) > 100, JSON.stringify([...seen]));
  assert.deepEqual(
    agent.messages.filter((line) => /somebody/.test(line)),
    [],
  );

  await nginx.http.patch('v1/upstreams/web', { json: { overrides: null } });
  await until('it is back', async () => (await ask(nginx, 'web')) === 'one');
});
