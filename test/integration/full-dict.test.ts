// A full dict between the agent and nginx: what leaves goes together with what
// fits of what comes, no request fails, and the log says what is left out.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createAdminClient, type Mirror } from '../../agent/openresty/admin.ts';
import { type Pushed, push } from '../../agent/openresty/push.ts';
import { loadSnapshot } from '../../agent/snapshot/file.ts';
import type { Peers } from '../../agent/state/document.ts';
import { diffDocuments } from '../../agent/state/parts.ts';
import { Backend } from '../stack/backend.ts';
import type { Nginx } from '../stack/nginx.ts';
import { until } from '../stack/process.ts';
import { peers, type Stack, startStack } from '../stack/stack.ts';
import { tokenFile } from '../stack/token.ts';
import { traffic } from '../stack/traffic.ts';
import { deadPeer, deadPeers, startOpenresty } from './openresty.ts';

/** Puts upstreams of a person into the dict until not one more peer fits. @returns their names */
async function fill({ http }: Nginx): Promise<string[]> {
  const names: string[] = [];
  for (const size of [40, 10, 1]) {
    for (let status = 200; status === 200; ) {
      const name = `by-hand-${names.length}`;
      const json = { peers: deadPeers(size) };
      const answer = await http.put(`v1/upstreams/${name}`, {
        json,
        throwHttpErrors: false,
      });
      status = answer.statusCode;
      if (status === 200) names.push(name);
    }
  }
  return names;
}

async function backends(t: TestContext, ...names: string[]): Promise<Backend[]> {
  const started = await Promise.all(names.map((name) => Backend.start(name)));
  t.after(() => Promise.all(started.map((backend) => backend.stop())));
  return started;
}

/** One change of Consul's catalogue: its watchers see all of it at once. */
async function swap(
  { consul }: Stack,
  { leave = [], come = [] }: { leave?: Backend[]; come?: Backend[] },
): Promise<void> {
  const service = (Verb: string, { name, port }: Backend) => ({
    Service: {
      Verb,
      Node: 'far',
      // As long as IDs get: few of them fit.
      Service: { ID: name.padEnd(250, '-'), Service: 'web', Address: '127.0.0.1', Port: port },
    },
  });
  const json = [
    { Node: { Verb: 'set', Node: { Node: 'far', Address: '127.0.0.1' } } },
    ...come.map((backend) => service('set', backend)),
    ...leave.map((backend) => service('delete', backend)),
  ];
  await consul.http.put('txn', { json });
}

test('all peers are replaced by more than fit', async (t) => {
  const stack = await startStack({ dict: '256k' });
  t.after(() => stack.stop());
  const [a, b, ...rest] = await backends(t, ...'abcdefghijklmnopqrstuvwxyz');
  assert(a !== undefined && b !== undefined);
  await swap(stack, { come: [a, b] });
  const agent = stack.agent('--service', 'web');
  await until('a and b serve', async () => (await peers(stack.nginx, 'web'))?.length === 2);
  const names = await fill(stack.nginx);
  const stop = traffic(t, stack);
  const said = () =>
    agent.log
      .split('\n')
      .filter((line) => line.includes('left out'))
      .map((line) => JSON.parse(line) as { level: number; msg: string })
      .filter(({ level }) => level >= 50)
      .map(({ msg }) => msg);

  await swap(stack, { leave: [a, b], come: rest });
  await until('it is said', () => said().length > 0);
  // Tried again meanwhile, and not said again.
  await new Promise((resolve) => setTimeout(resolve, 5000));
  assert.equal(said().length, 1, said().join('\n'));
  // As many as fit have come in more than one write.
  const served = (await peers(stack.nginx, 'web')) ?? [];
  assert.ok(!served.includes(a.address) && !served.includes(b.address), `${served}`);
  assert.ok(served.length >= 2 && served.length < rest.length, `${served.length} fit`);
  const missing = rest.length - served.length;
  assert.match(said()[0] ?? '', new RegExp(`^web: ${missing} new or changed peers? (is|are) left`));
  assert.match(said()[0] ?? '', /507 .* needs about \d+ bytes .* enlarge lua_shared_dict/);

  for (const name of names) await stack.nginx.http.delete(`v1/upstreams/${name}`);
  await until(
    'all are in',
    async () => (await peers(stack.nginx, 'web'))?.length === rest.length,
    40,
  );
  await until('it is said', () =>
    agent.messages.some((line) => line.endsWith('web is whole again')),
  );
  const { wrong, count } = await stop();
  assert.deepEqual(wrong, []);
  assert.ok(count > 0);
});

test('a dict is enlarged by a reload: with a snapshot no request fails', async (t) => {
  const stack = await startStack({ dict: '256k' });
  t.after(() => stack.stop());
  const [a] = await backends(t, 'a');
  assert(a !== undefined);
  await swap(stack, { come: [a] });
  const agent = stack.agent('--service', 'web');
  await until('the snapshot', () => loadSnapshot(stack.nginx.snapshot) !== undefined);
  await until('a serves', async () => (await peers(stack.nginx, 'web'))?.length === 1);
  const stop = traffic(t, stack);
  const path = join(stack.folder, 'nginx', 'nginx.conf');
  const conf = readFileSync(path, 'utf8');
  writeFileSync(path, conf.replace('reloadless 256k', 'reloadless 1m'));
  const workers = stack.nginx.workers();
  stack.nginx.hup();
  await until('other workers', () => {
    const now = stack.nginx.workers();
    return now.length === workers.length && now.every((pid) => !workers.includes(pid));
  });
  const { capacity } = await stack.nginx.http('v1/status').json<{ capacity: number }>();
  assert.equal(capacity, 1024 * 1024);
  await until('the agent knows', () => agent.messages.some((line) => line.includes('restarted')));
  const { wrong, count } = await stop();
  assert.deepEqual(wrong, []);
  assert.ok(count > 0);
});

const { signal } = new AbortController();

/** Brings the upstream `big` of an nginx to these peers, as the agent does. */
async function bring(nginx: Nginx, to: Peers): Promise<Pushed> {
  const client = createAdminClient({
    endpoint: { name: nginx.admin, url: nginx.admin },
    token_file: tokenFile,
  });
  try {
    const mirror = (await client.get(undefined, signal)) as Mirror;
    const upstreams = { ...mirror.document.upstreams, big: { owner: 'test', peers: to } };
    const patch = diffDocuments(mirror.document, { upstreams });
    return await push(client, mirror, patch ?? { upstreams: {} }, signal);
  } finally {
    client.close();
  }
}

function range(from: number, to: number): Peers {
  const all: Peers = {};
  for (let i = from; i < to; i += 1) all[deadPeer(i)] = { weight: 1, id: `web-${i}` };
  return all;
}

test('a dict full of one upstream', async (t) => {
  const { admin, nginx } = await startOpenresty({ dict: '512k' });
  const big = '/v1/upstreams/big';
  const count = async () => (await peers(nginx, 'big'))?.length;

  // What one write into the empty dict holds, to a hundred.
  let fits = 0;
  for (let step = 6400; step >= 100; step /= 2) {
    const { status } = await admin.send('PUT', big, { peers: range(0, fits + step) });
    if (status === 200) fits += step;
    await admin.send('DELETE', big);
  }
  assert.ok(fits > 4000, `${fits}`);

  await t.test('growing in parts, it holds as many as in one write', async () => {
    const { refused } = await bring(nginx, range(0, fits * 2));
    assert.deepEqual([...refused.keys()], ['big']);
    const reached = (await count()) ?? 0;
    t.diagnostic(`in one write ${fits}, in parts ${reached}`);
    assert.ok(reached > 0.95 * fits, `${reached} of ${fits}`);
  });

  await t.test('1,200 that have left go, whatever wants to come', async () => {
    const before = Object.keys(
      (await bring(nginx, range(0, fits * 2))).mirror.document.upstreams.big?.peers ?? {},
    );
    const gone = before.slice(0, 1200);
    const want = range(0, fits * 2);
    for (const key of gone) delete want[key];
    const { mirror, refused } = await bring(nginx, want);
    const now = mirror.document.upstreams.big?.peers ?? {};
    assert.deepEqual(
      gone.filter((key) => Object.hasOwn(now, key)),
      [],
    );
    assert.deepEqual([...refused.keys()], ['big']);
    // and about as many came for them
    assert.ok(Object.keys(now).length > before.length - 100, `${Object.keys(now).length}`);
  });

  await t.test('all its peers are replaced by others', async () => {
    const reached = (await count()) ?? 0;
    const others = range(100_000, 100_000 + Math.floor(0.6 * reached));
    const { mirror, refused } = await bring(nginx, others);
    assert.deepEqual([...refused.keys()], []);
    assert.deepEqual(mirror.document.upstreams.big?.peers, others);
  });

  await t.test('all of them drain, leave and come back', async () => {
    const { mirror } = await bring(nginx, range(0, fits * 2));
    const has = mirror.document.upstreams.big?.peers ?? {};
    const draining = Object.fromEntries(
      Object.entries(has).map(([key, peer]) => [key, { ...peer, drain: true }]),
    );
    await bring(nginx, draining);
    const half = Object.fromEntries(Object.entries(has).filter((_, i) => i % 2 === 0));
    assert.deepEqual([...(await bring(nginx, half)).refused.keys()], []);
    await bring(nginx, has);
    const reached = (await count()) ?? 0;
    assert.ok(reached > 0.85 * fits, `${reached} of ${fits}`);
    await bring(nginx, {});
    assert.equal(await count(), 0);
  });
});
