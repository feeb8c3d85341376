// What a person has said, an upstream of their own or a word on a peer, is still
// so after nginx was reloaded, restarted and killed, whoever writes meanwhile.
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { crc32 } from 'node:zlib';
import { reloadless } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { until } from '../stack/process.ts';
import { ask, perName } from '../stack/stack.ts';

type Upstreams = Record<string, { peers: object; overrides?: object; owner?: string }>;

async function start(t: TestContext, content?: string) {
  const { folder, remove } = temporaryFolder();
  const own = join(folder, 'state');
  mkdirSync(own);
  // Workers run as nobody when we are root.
  chmodSync(own, 0o777);
  const file = join(own, 'by-hand');
  if (content !== undefined) writeFileSync(file, content);
  const nginx = await Nginx.start(join(folder, 'nginx'), {
    http: perName,
    init: `state = "${file}",`,
  });
  t.after(async () => {
    await nginx.kill().catch(() => {});
    chmodSync(own, 0o777);
    remove();
  });
  const patch = (json: object) => nginx.http.patch('v1/upstreams', { json });
  const read = async () =>
    (await nginx.http('v1/upstreams').json<{ upstreams: Upstreams }>()).upstreams;
  const restart = async () => {
    await nginx.kill();
    await nginx.up();
  };
  return { own, file, nginx, patch, read, restart };
}

/** As the snapshot and the state file have a document. */
function fileOf(body: string): string {
  const header = {
    format: 1,
    saved_at: '2026-01-31T12:00:00Z',
    length: body.length,
    crc32: crc32(body),
  };
  return `${JSON.stringify(header)}\n${body}\n`;
}

async function startBackends(t: TestContext) {
  const backends = [await Backend.start('one'), await Backend.start('other')] as const;
  for (const backend of backends) t.after(() => backend.stop());
  return backends.map(({ port }) => `127.0.0.1:${port}`) as [string, string];
}

test('no peer that a person took out is asked, whatever ends', async (t) => {
  const { nginx, patch, read, restart } = await start(t);
  const [one, other] = await startBackends(t);
  let isOver = false;
  let pushes = 0;
  const push = async () => {
    pushes += 1;
    // As an agent: all of it again after a start, and each time something new.
    const peers = { [one]: { weight: 1 + (pushes % 9) }, [other]: { weight: 1 + (pushes % 7) } };
    await patch({ upstreams: { web: { owner: 'reloadless', peers } } });
  };
  await push();
  writeFileSync(nginx.snapshot, fileOf(JSON.stringify({ upstreams: await read() })));
  await until('one serves', async () => (await ask(nginx, 'web')) === 'one');
  const said = { [one]: { down: true, note: 'disk swap' } };
  const mine = { max_tries: 2, peers: { [other]: { id: 'mine' } } };
  const pushing = (async () => {
    while (!isOver) await push().catch(() => {});
  })();
  await patch({ upstreams: { web: { overrides: said }, mine } });

  const seen = new Map<string | number, number>();
  const load = async () => {
    while (!isOver) {
      const answer = await ask(nginx, 'web').catch(() => 'cut');
      seen.set(answer, (seen.get(answer) ?? 0) + 1);
    }
  };
  const loads = [load(), load()];
  await restart();
  const pause = () => new Promise((resolve) => setTimeout(resolve, 300));
  for (let round = 0; round < 2; round += 1) {
    await pause();
    nginx.hup();
    await pause();
    await nginx.kill();
    await nginx.up();
    await pause();
    await nginx.stop('SIGQUIT');
    await nginx.up();
    assert.equal(await ask(nginx, 'mine'), 'other');
  }
  await pause();
  isOver = true;
  await Promise.all([pushing, ...loads]);
  assert.ok(pushes > 50, `${pushes} pushes`);
  assert.equal(seen.get('one'), undefined, JSON.stringify([...seen]));
  assert.ok((seen.get('other') ?? 0) > 50, JSON.stringify([...seen]));
  const now = await read();
  assert.deepEqual(now.web?.overrides, said);
  assert.deepEqual(now.mine, mine);
});

test('what two workers write at once is there after a kill', async (t) => {
  const { patch, read, restart } = await start(t);
  const names = Array.from({ length: 30 }, (_, i) => `by-hand-${i}`);
  await Promise.all(
    names.map((name, i) =>
      patch({ upstreams: { [name]: { peers: { [`10.0.0.1:${i + 1}`]: {} } } } }),
    ),
  );
  await restart();
  assert.deepEqual(Object.keys(await read()).sort(), names.sort());
  await patch({ upstreams: { 'by-hand-0': null } });
  await restart();
  assert.equal((await read())['by-hand-0'], undefined);
});

test('what ends while nginx is down has ended after the start', async (t) => {
  const { nginx, patch, read } = await start(t);
  const now = Math.floor(Date.now() / 1000);
  const peers = { '10.0.0.1:80': {} };
  await patch({
    upstreams: {
      short: {
        owner: 'a',
        peers,
        overrides: { '10.0.0.1:80': { down: true, expires_at: now + 2 } },
      },
      long: {
        owner: 'a',
        peers,
        overrides: { '10.0.0.1:80': { down: true, expires_at: now + 999 } },
      },
    },
  });
  await nginx.kill();
  await until('the end has passed', async () => Date.now() / 1000 > now + 2);
  await nginx.up();
  assert.deepEqual(Object.keys(await read()), ['long']);
});

test('a damaged file is said, and kept for a person to see', async (t) => {
  const { file, nginx, patch, read, restart } = await start(t, '{"format":1}\n{}\n');
  assert.match(nginx.errorLog, /state \S+: is not used: its saved_at is not a time/);
  assert.deepEqual(await read(), {});
  await patch({ upstreams: { mine: { peers: {} } } });
  assert.equal(readFileSync(`${file}.damaged`, 'utf8'), '{"format":1}\n{}\n');
  await restart();
  assert.deepEqual(await read(), { mine: { peers: {} } });
});

test('one that is wrong in the file takes no other with it', async (t) => {
  const body =
    '{"upstreams":{"good":{"peers":{"10.0.0.1:80":{}}},"bad":{"peers":{},"balance":"x"}}}';
  const content = fileOf(body);
  const { file, nginx, read } = await start(t, content);
  assert.deepEqual(Object.keys(await read()), ['good']);
  assert.match(nginx.errorLog, /left out: \/upstreams\/bad\/balance/);
  assert.equal(readFileSync(`${file}.damaged`, 'utf8'), content);
});

test('what cannot be saved is in force, is said, and is saved later', async (t) => {
  const { own, file, nginx, patch, read, restart } = await start(t);
  chmodSync(own, 0o555);
  const answer = await patch({ upstreams: { mine: { peers: {} } } });
  assert.match(String(answer.headers['reloadless-saved']), /^no; .*Permission denied/);
  assert.deepEqual(await read(), { mine: { peers: {} } });
  const again = await patch({ upstreams: { mine: { peers: {} } } });
  assert.match(String(again.headers['reloadless-saved']), /^no; /);
  const other = await patch({ upstreams: { web: { owner: 'a', peers: {} } } });
  assert.equal(other.headers['reloadless-saved'], undefined);
  await patch({ upstreams: { web: { peers: { '10.0.0.5:80': {} } } } });
  const said = await reloadless(['drain', 'web', '10.0.0.5:80', '--openresty', nginx.admin]);
  assert.equal(said.code, 0);
  assert.match(said.stderr, /: it is in force, but not saved: a restart loses it: .*denied/);
  assert.ok(/cannot be saved: /.test(nginx.errorLog));
  assert.ok(!existsSync(file));
  chmodSync(own, 0o777);
  await until('it is saved', async () => existsSync(file));
  await restart();
  const { mine, web } = await read();
  assert.deepEqual([mine?.peers, Object.keys(web?.overrides ?? {})], [{}, ['10.0.0.5:80']]);
});
