import assert from 'node:assert/strict';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { loadSnapshot, saveSnapshot } from '../../agent/snapshot/file.ts';
import { decodeSnapshot, encodeSnapshot } from '../../agent/snapshot/format.ts';
import { createSnapshotWriter } from '../../agent/snapshot/writer.ts';
import type { Document } from '../../agent/table/document.ts';
import { temporaryFolder } from '../stack/folder.ts';

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

test('the file is two lines, the second as long as the first says', () => {
  const [head, body, end] = encodeSnapshot(snapshot).toString().split('\n');
  const header = JSON.parse(head ?? '');
  assert.deepEqual(Object.keys(header), ['format', 'saved_at', 'length', 'crc32']);
  assert.equal(header.format, 1);
  assert.equal(header.saved_at, '2026-01-31T12:00:00.000Z');
  assert.equal(header.length, Buffer.byteLength(body ?? ''));
  assert.deepEqual(JSON.parse(body ?? ''), document);
  assert.equal(end, '');
});

test('the checksum is the CRC-32 that everybody means', () => {
  const head = encodeSnapshot({ ...snapshot, document: { upstreams: {} } }).toString();
  // Of {"upstreams":{}}, by the zlib of another language.
  assert.match(head, /"crc32":3617195308\b/);
});

test('what was saved is loaded, and everybody may read it', async () => {
  const path = join(folder, 'whole');
  await saveSnapshot(path, snapshot);
  assert.deepEqual(loadSnapshot(path), snapshot);
  assert.equal(statSync(path).mode & 0o777, 0o644);
  assert.deepEqual(readdirSync(folder), ['whole']);
});

test('no file is no snapshot', () => {
  assert.equal(loadSnapshot(join(folder, 'none')), undefined);
});

test('every single damaged byte and every cut is noticed', () => {
  const good = encodeSnapshot(snapshot);
  const start = good.indexOf('\n') + 1;
  for (let i = start; i < good.length - 1; i += 1) {
    const bad = Buffer.from(good);
    bad[i] = (bad[i] ?? 0) ^ 1;
    assert.throws(() => decodeSnapshot(bad), /^Error: the checksum does not match$/);
  }
  for (let i = 0; i < good.length - 1; i += 1) {
    assert.throws(() => decodeSnapshot(good.subarray(0, i)), Error);
  }
});

test('a damaged snapshot says how', () => {
  const message = (text: string) => {
    try {
      decodeSnapshot(Buffer.from(text));
    } catch (error) {
      return (error as Error).message;
    }
    return 'taken';
  };
  const good = encodeSnapshot(snapshot).toString();
  assert.equal(message(''), 'the first line does not end');
  assert.equal(message('garbage\n{}\n'), 'the first line is not JSON');
  assert.match(message(good.replace('"format":1', '"format":2')), /^the first line: format: 2 is/);
  assert.match(message(good.slice(0, -20)), /^it is cut off: \d+ of \d+ bytes$/);
});

test('a document that the admin endpoint would refuse is refused here', () => {
  const bad = { upstreams: { web: { peers: { 'localhost:80': {} } } } };
  assert.throws(
    () => decodeSnapshot(encodeSnapshot({ ...snapshot, document: bad })),
    /localhost:80: the key is not an address/,
  );
});

test('many changes are few writes, and the last state is the one written', async () => {
  const path = join(folder, 'writer');
  let upstreams: Document['upstreams'] = {};
  let writes = 0;
  const writer = createSnapshotWriter(
    path,
    () => ({ upstreams }),
    (error) => {
      assert.equal(error, undefined);
      writes += 1;
    },
  );
  for (let i = 0; i < 100; i += 1) {
    upstreams = { [`u${i}`]: { peers: {} } };
    writer.changed();
  }
  await writer.stop();
  assert.equal(writes, 1);
  assert.deepEqual(Object.keys(loadSnapshot(path)?.document.upstreams ?? {}), ['u99']);
});

test('a snapshot that cannot be written is reported', async () => {
  const errors: unknown[] = [];
  const writer = createSnapshotWriter(
    join(folder, 'no', 'such', 'folder'),
    () => document,
    (error) => errors.push(error),
  );
  writer.changed();
  await writer.stop();
  assert.match(String(errors[0]), /ENOENT/);
});
