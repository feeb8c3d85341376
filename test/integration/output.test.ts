// What becomes of output: into a slow pipe, one that is closed, a full disk.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { saveSnapshot } from '../../agent/snapshot/file.ts';
import { main } from '../stack/agent.ts';
import { temporaryFolder } from '../stack/folder.ts';

const { folder, remove } = temporaryFolder();
after(remove);
const snapshot = join(folder, 'big.snapshot');
const peers = Object.fromEntries(
  Array.from({ length: 10_000 }, (_, i) => [`10.0.0.1:${i + 1}`, {}]),
);
const document = { upstreams: { web: { peers } } };
const whole = `${JSON.stringify(document, null, 2)}\n`;

before(() => saveSnapshot(snapshot, { savedAt: new Date(), document }));

/** Runs a line of bash, in which `show` prints the snapshot, 300 KB. */
function bash(line: string) {
  const functions = `set -o pipefail
    reloadless() { '${process.execPath}' '${main}' "$@"; }
    show() { reloadless snapshot show '${snapshot}'; }`;
  const options = { cwd: folder, encoding: 'utf8', maxBuffer: 2 ** 24 } as const;
  const { status, stdout, stderr } = spawnSync('bash', ['-c', `${functions}\n${line}`], options);
  return { code: status, stdout, stderr };
}

test('all of it comes through a pipe whose reader is slow', () => {
  assert.deepEqual(bash('show | (sleep 0.3; cat)'), { code: 0, stdout: whole, stderr: '' });
});

test('and through a socket, and into a file', () => {
  assert.deepEqual(bash('show'), { code: 0, stdout: whole, stderr: '' });
  assert.equal(bash('show > out').code, 0);
  assert.equal(readFileSync(join(folder, 'out'), 'utf8'), whole);
});

test('a reader that has enough ends it without a word', () => {
  assert.deepEqual(bash('show | head -1'), { code: 0, stdout: '{\n', stderr: '' });
  assert.deepEqual(bash('reloadless --help | true'), { code: 0, stdout: '', stderr: '' });
});

test('a disk that is full is an error', () => {
  for (const command of ['show', 'reloadless --help', 'reloadless --version']) {
    const { code, stderr } = bash(`${command} > /dev/full`);
    assert.equal(code, 1, command);
    assert.match(stderr, /^reloadless: stdout: ENOSPC: [^\n]*\n$/);
  }
});

test('so is a disk that becomes full on the way', () => {
  const { code, stderr } = bash('ulimit -f 100; show > out');
  assert.equal(code, 1);
  assert.match(stderr, /^reloadless: stdout: EFBIG: [^\n]*\n$/);
});

test('what cannot be said changes no exit code', () => {
  assert.equal(bash('reloadless nonsense 2> /dev/full').code, 2);
  assert.equal(bash('reloadless snapshot show /no/such 2> /dev/full').code, 1);
  assert.equal(bash('(reloadless nonsense; echo $? > code) 2>&1 | true').code, 2 - 2);
  assert.equal(readFileSync(join(folder, 'code'), 'utf8'), '2\n');
});
