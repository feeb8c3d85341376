import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { loadSnapshot, replaceFile, saveSnapshot } from '../../agent/snapshot/file.ts';
import { decodeSnapshot, encodeSnapshot } from '../../agent/snapshot/format.ts';
import { createSnapshotWriter } from '../../agent/snapshot/writer.ts';
import type { Document } from '../../agent/state/document.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { until } from '../stack/process.ts';

const document: Document = {
  upstreams: { web: { owner: 'é', peers: { '10.0.0.5:80': { weight: 2, id: 'a' } } } },
};
const snapshot = { savedAt: new Date('2026-01-31T12:00:00.000Z'), document };

let folder = '';
let remove = () => {};
before(() => {
  ({ folder, remove } = temporaryFolder());
});
after(() => remove());

test('the file is two lines, the second as long as the first says', async () => {
  const [head, body, end] = (await encodeSnapshot(snapshot)).toString().split('\n');
  const header = JSON.parse(head ?? '');
  assert.deepEqual(Object.keys(header), ['format', 'saved_at', 'length', 'crc32']);
  assert.equal(header.format, 1);
  assert.equal(header.saved_at, '2026-01-31T12:00:00.000Z');
  assert.equal(header.length, Buffer.byteLength(body ?? ''));
  assert.deepEqual(JSON.parse(body ?? ''), document);
  assert.equal(end, '');
});

test('the checksum is the CRC-32 that everybody means', async () => {
  const head = (await encodeSnapshot({ ...snapshot, document: { upstreams: {} } })).toString();
  // Of {"upstreams":{}}, by the zlib of another language.
  assert.match(head, /"crc32":3617195308\b/);
});

test('a large one is encoded as JSON has it, and holds up nothing meanwhile', async () => {
  const peers = Object.fromEntries(
    Array.from({ length: 20 }, (_, i) => [`10.0.0.${i}:80`, { weight: 1, id: `web-${i}` }]),
  );
  const names = ['__proto__', 'a"b', ...Array.from({ length: 5000 }, (_, i) => `s${i}`)];
  const upstreams = Object.fromEntries(names.map((name) => [name, { owner: 'me', peers }]));
  let turns = 0;
  const timer = setInterval(() => {
    turns += 1;
  }, 0);
  const bytes = await encodeSnapshot({ ...snapshot, document: { upstreams } });
  clearInterval(timer);
  assert.equal(bytes.toString().split('\n')[1], JSON.stringify({ upstreams }));
  assert.ok(turns >= 3, `${turns} turns`);
});

test('what was saved is loaded, and no other user may read it', async () => {
  const path = join(folder, 'whole');
  await saveSnapshot(path, snapshot);
  assert.deepEqual(loadSnapshot(path), { ...snapshot, leftOut: [] });
  assert.equal(statSync(path).mode & 0o777, 0o640);
  assert.deepEqual(readdirSync(folder), ['whole']);
});

test('what root saves belongs to whoever has the folder', async (t) => {
  if (process.getuid?.() !== 0) return t.skip('only root gives files away');
  const own = join(folder, 'own');
  mkdirSync(own);
  chownSync(own, 12_345, 23_456);
  const path = join(own, 'snapshot');
  await saveSnapshot(path, snapshot);
  const { uid, gid } = statSync(path);
  assert.deepEqual([uid, gid], [12_345, 23_456]);
  rmSync(own, { recursive: true });
});

test('no file is no snapshot', () => {
  assert.equal(loadSnapshot(join(folder, 'none')), undefined);
});

test('every single damaged byte and every cut is noticed', async () => {
  const good = await encodeSnapshot(snapshot);
  const start = good.indexOf('\n') + 1;
  for (let i = start; i < good.length - 1; i += 1) {
    const bad = Buffer.from(good);
    bad[i] = (bad[i] ?? 0) ^ 1;
    assert.throws(() => decodeSnapshot(bad), /^SnapshotError: the checksum does not match$/);
  }
  for (let i = 0; i < good.length; i += 1) {
    assert.throws(() => decodeSnapshot(good.subarray(0, i)), Error);
  }
});

test('a damaged snapshot says how', async () => {
  const message = (text: string) => {
    try {
      decodeSnapshot(Buffer.from(text));
    } catch (error) {
      return (error as Error).message;
    }
    return 'taken';
  };
  const good = (await encodeSnapshot(snapshot)).toString();
  assert.equal(message(''), 'the first line does not end');
  assert.equal(message('garbage\n{}\n'), 'the first line is not JSON');
  assert.match(message(good.replace('"format":1', '"format":2')), /^the first line: format: 2 is/);
  assert.match(
    message(good.slice(0, -20)),
    /^it has \d+ bytes behind the first line, not \d+ and a newline$/,
  );
});

interface Case {
  name: string;
  /** The file, each character a byte. */
  content: string;
  /** What is read of it; absent when it is refused as a whole. */
  document?: Document;
}

const cases: Case[] = JSON.parse(readFileSync('test/cases/snapshots.json', 'utf8'));
for (const { name, content, document } of cases) {
  test(`as nginx: ${name}`, () => {
    const bytes = Buffer.from(content, 'latin1');
    if (document === undefined) assert.throws(() => decodeSnapshot(bytes), Error);
    else assert.deepEqual(decodeSnapshot(bytes).document, document);
  });
}

test('what is left out is named, and the rest is read', async () => {
  const { peers } = document.upstreams.web ?? { peers: {} };
  const bad = {
    upstreams: {
      ...document.upstreams,
      api: { peers: { ...peers, 'localhost:80': {} } },
      odd: { balance: 'odd', peers },
    },
  } as unknown as Document;
  const read = decodeSnapshot(await encodeSnapshot({ ...snapshot, document: bad }));
  assert.deepEqual(read.document.upstreams, { ...document.upstreams, api: { peers } });
  assert.match(
    read.leftOut[0] ?? '',
    /^upstreams\.api\.peers\.localhost:80: the key is not an addr/,
  );
  assert.match(read.leftOut[1] ?? '', /^upstreams\.odd\.balance: "odd" is not one of/);
  assert.equal(read.leftOut.length, 2);
});

test('what is no regular file is refused at once', () => {
  const path = join(folder, 'odd');
  execFileSync('mkfifo', [path]);
  assert.throws(() => loadSnapshot(path), /^SnapshotError: it is not a regular file$/);
  rmSync(path);
  mkdirSync(path);
  assert.throws(() => loadSnapshot(path), /^SnapshotError: it is not a regular file$/);
  rmdirSync(path);
  symlinkSync('/dev/zero', path);
  assert.throws(() => loadSnapshot(path), /^SnapshotError: it is not a regular file$/);
  rmSync(path);
});

test('a write puts itself in the place of whatever is there, and follows no link', async () => {
  const path = join(folder, 'taken');
  const victim = join(folder, 'victim');
  writeFileSync(victim, 'precious');
  for (const put of [
    () => execFileSync('mkfifo', [path]),
    () => symlinkSync(victim, path),
    // where the temporary file used to be
    () => symlinkSync(victim, `${path}.tmp`),
  ]) {
    put();
    await saveSnapshot(path, snapshot);
    assert.ok(lstatSync(path).isFile());
    assert.deepEqual(loadSnapshot(path)?.document, document);
    assert.equal(readFileSync(victim, 'utf8'), 'precious');
    rmSync(path);
  }
});

test('a failed write leaves nothing, and what a killed writer left goes after an hour', async () => {
  const own = join(folder, 'own');
  mkdirSync(join(own, 'way'), { recursive: true });
  const path = join(own, 'way');
  await assert.rejects(replaceFile(path, Buffer.from('x')), /EISDIR/);
  assert.deepEqual(readdirSync(own), ['way']);
  rmdirSync(path);

  const old = new Date(Date.now() - 2 * 3_600_000);
  for (const name of ['way.0123456789abcdef.tmp', 'way.fedcba9876543210.tmp', 'way.other.tmp']) {
    writeFileSync(join(own, name), '');
    if (!name.startsWith('way.f')) utimesSync(join(own, name), old, old);
  }
  await replaceFile(path, Buffer.from('x'));
  assert.deepEqual(readdirSync(own).sort(), ['way', 'way.fedcba9876543210.tmp', 'way.other.tmp']);
});

test('many that write at once never show a torn file, and none fails', async () => {
  const path = join(folder, 'shared');
  const writer = `
    import { saveSnapshot } from '${new URL('../../agent/snapshot/file.ts', import.meta.url)}';
    const [path, n] = process.argv.slice(1);
    const peers = {};
    for (let i = 0; i < 300 * Number(n); i += 1) peers['10.0.' + (i >> 8) + '.' + (i & 255) + ':80'] = {};
    for (let i = 0; i < 60; i += 1)
      await saveSnapshot(path, { savedAt: new Date(), document: { upstreams: { web: { peers } } } });`;
  const children = [1, 2, 3, 4].map((n) =>
    spawn(
      process.execPath,
      ['--import', 'tsx', '--input-type=module', '-e', writer, path, String(n)],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    ),
  );
  const codes = Promise.all(children.map(async (child) => (await once(child, 'exit'))[0]));
  let looks = 0;
  let running = true;
  codes.then(() => {
    running = false;
  });
  while (running) {
    if (loadSnapshot(path) !== undefined) looks += 1;
    await new Promise((resolve) => setImmediate(resolve));
  }
  assert.deepEqual(await codes, [0, 0, 0, 0]);
  assert.ok(looks > 10, `${looks} looks`);
  const left = readdirSync(folder).filter((name) => name.startsWith('shared'));
  assert.deepEqual(left, ['shared']);
});

test('many changes are few writes, and the last state is the one written', async () => {
  const path = join(folder, 'writer');
  let upstreams: Document['upstreams'] = {};
  let writes = 0;
  const writer = createSnapshotWriter(path, () => ({ upstreams }), {
    failed: assert.fail,
    written: () => {
      writes += 1;
    },
  });
  for (let i = 0; i < 100; i += 1) {
    upstreams = { [`u${i}`]: { peers: {} } };
    writer.changed();
  }
  await writer.stop();
  assert.equal(writes, 1);
  assert.deepEqual(Object.keys(loadSnapshot(path)?.document.upstreams ?? {}), ['u99']);
});

test('while changes keep coming a second lies between two writes', async () => {
  const path = join(folder, 'churn');
  const began = performance.now();
  const writes: number[] = [];
  const writer = createSnapshotWriter(path, () => document, {
    failed: assert.fail,
    written: () => writes.push(performance.now() - began),
  });
  const churn = setInterval(writer.changed, 10);
  await until('it is written twice', () => writes.length >= 2);
  clearInterval(churn);
  await writer.stop();
  const [first = 0, second = 0] = writes;
  assert.ok(second - first > 500, `${first} and ${second} ms`);
});

test('a snapshot that could not be written is tried again', async () => {
  const path = join(folder, 'later', 'file');
  const failed: string[] = [];
  const written: number[] = [];
  const writer = createSnapshotWriter(path, () => document, {
    failed: (error, failures) => failed.push(`${failures} ${error.message}`),
    written: (failures) => written.push(failures),
  });
  writer.changed();
  await until('it fails twice', () => failed.length >= 2);
  assert.match(failed[1] ?? '', /^2 ENOENT/);
  mkdirSync(join(folder, 'later'));
  await until('it is written', () => written.length === 1);
  assert.deepEqual(written, [failed.length]);
  assert.deepEqual(loadSnapshot(path)?.document, document);
  await writer.stop();
});

test('a writer that cannot write ends at once when it is told to', async () => {
  const failed: Error[] = [];
  const writer = createSnapshotWriter(join(folder, 'no', 'such', 'folder'), () => document, {
    failed: (error) => failed.push(error),
    written: () => assert.fail(),
  });
  writer.changed();
  await until('it fails', () => failed.length > 0);
  const began = Date.now();
  await writer.stop();
  assert.ok(Date.now() - began < 1000);
  // The last try; no timer is left.
  const tries = failed.length;
  await new Promise((resolve) => setTimeout(resolve, 1500));
  assert.equal(failed.length, tries);
});
