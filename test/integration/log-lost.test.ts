// A log that cannot be written: the agent goes on, and says what is lost when it can.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, openSync, readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import { environment, main } from '../stack/agent.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { until } from '../stack/process.ts';
import { peers, type Stack, startStack } from '../stack/stack.ts';

const { folder, remove } = temporaryFolder();
let stack: Stack;
before(async () => {
  stack = await startStack();
});
after(async () => {
  await stack.stop();
  remove();
});

function run(t: TestContext, stdout: 'pipe' | number, name: string): ChildProcess {
  const args = [main, 'run', ...stack.flags, '--log-level', 'debug', '--service', name];
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', stdout, 'inherit'],
    env: environment({}),
  });
  t.after(() => child.kill('SIGKILL'));
  return child;
}

/** Two changes arrive, and the agent ends as it should. */
async function assertWorks(agent: ChildProcess, name: string): Promise<void> {
  for (const port of [1001, 1002]) {
    const id = `${name}-${port}`;
    await stack.consul.register({ name, id, address: '127.0.0.1', port });
    await until(id, async () => (await peers(stack.nginx, name))?.includes(`127.0.0.1:${port}`));
  }
  assert.equal(agent.exitCode, null);
  const ended = once(agent, 'exit');
  agent.kill('SIGTERM');
  assert.deepEqual(await ended, [0, null]);
}

test('the agent works with its log on a full disk', async (t) => {
  await assertWorks(run(t, openSync('/dev/full', 'w'), 'full'), 'full');
});

test('the agent works when the reader of its log has gone', async (t) => {
  const agent = run(t, 'pipe', 'gone');
  agent.stdout?.destroy();
  await assertWorks(agent, 'gone');
});

test('the agent works while nobody reads its log', async (t) => {
  await assertWorks(run(t, 'pipe', 'slow'), 'slow');
});

/** Numbered lines of a log, each when it is told so, by way of `shell`. */
function writer(t: TestContext, shell: string, format = 'json'): ChildProcess {
  const script = `
    import { createLog } from '${join(checkout, 'agent/telemetry/log.ts')}';
    const log = createLog({ level: 'info', format: '${format}' });
    let n = 0;
    process.on('message', (count) => {
      for (let i = 0; i < count; i += 1) log.info('line ' + (n += 1) + ' ' + 'x'.repeat(200));
      process.send(n);
    });
    process.send(0);`;
  const node = [process.execPath, '--import', 'tsx', '--input-type=module', '-e', script];
  const child = spawn('bash', ['-c', shell, 'bash', ...node], {
    cwd: checkout,
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  t.after(() => child.kill('SIGKILL'));
  return child;
}

async function lines(child: ChildProcess, count: number): Promise<void> {
  const done = once(child, 'message');
  child.send(count);
  await done;
}

/** Every line is there, or counted as lost; none is torn or out of order. */
function assertCounted(text: string, all: number, why: RegExp): void {
  const messages = text.split('\n').filter((line) => line !== '');
  const msgs = messages.map((line) => (JSON.parse(line) as { msg: string }).msg);
  const numbers = msgs.flatMap((msg) => /^line (\d+)/.exec(msg)?.[1] ?? []).map(Number);
  const notices = msgs.flatMap((msg) => {
    const [, count, reason = ''] =
      /^(\d+) lines of this log could not be written: (.*)$/.exec(msg) ?? [];
    if (count === undefined) return [];
    assert.match(reason, why);
    return [Number(count)];
  });
  assert.deepEqual(
    numbers,
    [...numbers].sort((a, b) => a - b),
  );
  assert.ok(notices.length > 0);
  assert.equal(numbers.length + notices.reduce((sum, count) => sum + count, 0), all);
}

test('a disk that becomes full and has room again', async (t) => {
  const file = join(folder, 'log');
  const child = writer(t, `ulimit -f 8; exec "$@" >> '${file}'`);
  await once(child, 'message');
  let text = '';
  for (let round = 0; round < 3; round += 1) {
    await lines(child, 100);
    assert.equal(readFileSync(file).length, 8192);
    text += readFileSync(file, 'utf8');
    truncateSync(file);
  }
  await lines(child, 1);
  assertCounted(text + readFileSync(file, 'utf8'), 301, /^EFBIG: /);
});

test('a reader that stops and goes on', async (t) => {
  const child = writer(t, 'exec "$@"');
  await once(child, 'message');
  await lines(child, 10_000);
  let text = '';
  child.stdout?.on('data', (chunk) => {
    text += chunk;
  });
  await until('it speaks of the rest', () => / lines of this log could not/.test(text));
  await lines(child, 1);
  await until('the last line', () => text.includes('line 10001 '));
  assertCounted(text, 10_001, /^its reader is too slow$/);
});

test('a log for people says it, too', async (t) => {
  const file = join(folder, 'pretty');
  const child = writer(t, `ulimit -f 8; exec "$@" >> '${file}'`, 'pretty');
  await once(child, 'message');
  await lines(child, 100);
  assert.ok(existsSync(file));
  truncateSync(file);
  await lines(child, 1);
  assert.match(
    readFileSync(file, 'utf8'),
    /ERROR.*: \d+ lines of this log could not be written: EFBIG/,
  );
});
