// Proves that many nginx are served by one agent as one is: what answers late or
// not at all delays none of the others, and has the latest when it is back.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { loadSnapshot } from '../../agent/snapshot/file.ts';
import { Agent, reloadless } from '../stack/agent.ts';
import { Cable } from '../stack/cable.ts';
import { Nginx } from '../stack/nginx.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { live, peers, type Stack, startStack } from '../stack/stack.ts';
import { tokenFile } from '../stack/token.ts';

const healthy = 48;
const changes = 20;

/** An nginx that only has the admin endpoint to itself. */
async function small(t: TestContext, stack: Stack, name: string): Promise<Nginx> {
  const nginx = await Nginx.start(join(stack.folder, name), {
    workers: 1,
    dict: '1m',
    http: ({ port }) => `server { listen 127.0.0.1:${port}; return 204; }`,
  });
  t.after(() => nginx.stop());
  return nginx;
}

/** An agent of these targets, with a snapshot of its own. */
function start(
  t: TestContext,
  stack: Stack,
  addresses: string[],
): { agent: Agent; snapshot: string } {
  const snapshot = join(stack.folder, 'other.snapshot');
  const config = {
    consul: { address: stack.consul.address },
    openresty: addresses.map((address) => ({ address, token_file: tokenFile })),
    ...{ snapshot, upstreams: { web: {} } },
  };
  const agent = Agent.start(join(stack.folder, 'other.log'), ['-c', stack.configure(config)]);
  t.after(() => agent.stop());
  return { agent, snapshot };
}

function register({ consul }: Stack, port: number): Promise<void> {
  return consul.register({ name: 'web', id: 'web', address: '10.0.0.1', port });
}

async function has(nginx: Nginx, port: number): Promise<boolean> {
  return (await peers(nginx, 'web'))?.join() === `10.0.0.1:${port}`;
}

test('of 50 targets a slow and a dead one delay none', async (t) => {
  const stack = await startStack();
  t.after(() => stack.stop());
  const names = Array.from({ length: healthy }, (_, i) => `nginx-${i}`);
  const all = await Promise.all(names.map((name) => small(t, stack, name)));
  const [slow, dead] = [await small(t, stack, 'slow'), await small(t, stack, 'dead')];
  const cable = await Cable.start(slow.adminPort);
  t.after(() => cable.stop());
  await register(stack, 1);
  const addresses = [`http://127.0.0.1:${cable.port}`, dead.admin, ...all.map((one) => one.admin)];
  start(t, stack, addresses);
  const everywhere = (which: Nginx[], port: number) =>
    Promise.all(which.map((one) => until(`it has port ${port}`, () => has(one, port))));
  await everywhere([...all, slow, dead], 1);

  cable.late(5000);
  await dead.stop();
  const before = (await live(slow)).version;
  for (let port = 2; port <= 1 + changes; port += 1) {
    await register(stack, port);
    await everywhere(all, port);
  }
  // Had the others waited for it, it would have taken each change.
  const taken = (await live(slow)).version - before;
  assert.ok(taken < changes, `the slow one has taken ${taken} of ${changes} changes meanwhile`);
  cable.late(0);
  await dead.up();
  await everywhere([slow, dead], 1 + changes);
});

test('where others have all targets that answer, the snapshot is theirs', async (t) => {
  const stack = await startStack();
  t.after(() => stack.stop());
  await register(stack, 1);
  const holder = stack.configure({ upstreams: { web: {}, more: {} } });
  stack.agent('-c', holder);
  await until('it has the target', () => has(stack.nginx, 1));

  const gone = `http://127.0.0.1:${await freePort()}`;
  const { agent: second, snapshot } = start(t, stack, [stack.nginx.admin, gone]);
  await until('it waits for one target', () => second.log.includes('waiting, nothing is pushed'));
  await until('it has missed the other', () => second.log.includes('ECONNREFUSED'));
  // What it has written before it knew.
  await until('its first snapshot', () => existsSync(snapshot));
  await new Promise((resolve) => setTimeout(resolve, 1500));
  const written = statSync(snapshot).mtimeMs;

  await register(stack, 2);
  const saved = () => loadSnapshot(stack.nginx.snapshot)?.document.upstreams.web?.peers ?? {};
  await until('the snapshot of the one that has it', () => '10.0.0.1:2' in saved());
  await until('the second has seen the change', () => second.log.includes('10.0.0.1:2'));
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.equal(statSync(snapshot).mtimeMs, written);

  const synced = join(stack.folder, 'synced.snapshot');
  await stack.consul.register({ name: 'api', id: 'api', address: '10.0.0.2', port: 1 });
  const flags = ['--consul', stack.consul.address, '--service', 'api', '--snapshot', synced];
  const { code } = await reloadless([
    ...['sync', ...flags, '--openresty', stack.nginx.admin, '--openresty', gone],
  ]);
  assert.deepEqual([code, existsSync(synced)], [1, false]);
});
test('of the targets of a sync, one that is silent keeps none from what it wants', async (t) => {
  const stack = await startStack();
  t.after(() => stack.stop());
  const silent = createServer();
  silent.listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.after(() => silent.close());
  const { port } = silent.address() as AddressInfo;
  await register(stack, 1);
  const openresty = [`http://127.0.0.1:${port}`, stack.nginx.admin];
  const { code, stdout, stderr } = await reloadless([
    ...['sync', '--consul', stack.consul.address, '--service', 'web', '--timeout', '3s'],
    ...openresty.flatMap((address) => ['--openresty', address]),
  ]);
  assert.deepEqual([code, stdout], [1, `${stack.nginx.admin}: changed web\n`]);
  assert.match(stderr, /not done within 3 s/);
  assert.ok(await has(stack.nginx, 1));
});
