import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import type { OnChange } from '../../agent/config/config.ts';
import { createChangeCommand } from '../../agent/telemetry/on-change.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { exists, until } from '../stack/process.ts';

/** @param script of sh, in a folder of its own that `$DIR` names */
function start(t: TestContext, script: string, timeout = 10_000) {
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const errors: string[] = [];
  const log = pino({ level: 'error' }, { write: (line) => errors.push(JSON.parse(line).msg) });
  const configured: OnChange = { command: ['sh', '-c', `DIR=${folder}; ${script}`], timeout };
  const command = createChangeCommand(() => configured, log);
  t.after(() => command.stop());
  const apply = (name: string, value: unknown = null) => {
    command.applied({ target: 'http://t', patch: { upstreams: { [name]: value } } });
  };
  const file = (name: string) => {
    const path = join(folder, name);
    return existsSync(path) ? readFileSync(path, 'utf8') : '';
  };
  return { apply, command, configured, errors, file };
}

test('the command is told what has changed', async (t) => {
  const { apply, file } = start(
    t,
    'echo "$RELOADLESS_UPSTREAMS" > $DIR/names; echo "$RELOADLESS_CHANGES" > $DIR/changes',
  );
  const patch = { peers: { '10.0.0.1:80': { id: "it's $HOME" } } };
  apply('web', patch);
  await until('it has run', () => file('changes').endsWith('\n'));
  assert.equal(file('names'), 'web\n');
  assert.deepEqual(JSON.parse(file('changes')), [
    { target: 'http://t', patch: { upstreams: { web: patch } } },
  ]);
});

test('one runs at a time, and the next is told all that has come meanwhile', async (t) => {
  const { apply, file } = start(
    t,
    'echo "+$RELOADLESS_UPSTREAMS" >> $DIR/log; sleep 0.3; echo - >> $DIR/log',
  );
  apply('a');
  await until('it runs', () => file('log') !== '');
  for (const name of ['b', 'c', 'b']) apply(name);
  await until('both have run', () => file('log').split('-').length === 3);
  await sleep(100);
  assert.equal(file('log'), '+a\n-\n+b c\n-\n');
});

test('one that takes too long is killed, with all that it has started, and the next runs', async (t) => {
  const { apply, errors, file } = start(
    t,
    '[ -s $DIR/pid ] && { : > $DIR/second; echo x > $DIR/second; exit; }; sleep 1000 & echo $! > $DIR/pid; wait',
    200,
  );
  apply('a');
  await until('it runs', () => file('pid') !== '');
  apply('b');
  await until('the next has run', () => file('second') !== '');
  assert.match(errors[0] ?? '', /^on_change: sh was killed: it took longer than 0\.2 s$/);
  await until('nothing of it is left', () => !exists(Number(file('pid'))));
});

test('one that fails, or is not there, is said so', async (t) => {
  const { apply, errors, configured } = start(t, 'echo because >&2; exit 3');
  apply('a');
  await until('it has failed', () => errors.length === 1);
  configured.command = ['/no/such/program'];
  apply('a');
  await until('it is not there', () => errors.length === 2);
  assert.equal(errors[0], 'on_change: sh failed: exit code 3');
  assert.match(errors[1] ?? '', /^on_change: \/no\/such\/program does not run: .*ENOENT/);
});

test('changes that are more than an environment takes are not told, only that there are some', async (t) => {
  const { apply, errors, file } = start(
    t,
    'echo "$RELOADLESS_UPSTREAMS $(printenv RELOADLESS_CHANGES | wc -c)" > $DIR/seen',
  );
  apply('web', { peers: { a: 'x'.repeat(200_000) } });
  await until('it has run', () => file('seen') !== '');
  assert.equal(file('seen'), 'web 0\n');
  assert.deepEqual(errors, []);
});

test("the command does not get Consul's token", async (t) => {
  process.env.CONSUL_HTTP_TOKEN = 'secret';
  t.after(() => delete process.env.CONSUL_HTTP_TOKEN);
  const { apply, file } = start(
    t,
    'printenv CONSUL_HTTP_TOKEN > $DIR/seen || echo none > $DIR/seen',
  );
  apply('web');
  await until('it has run', () => file('seen') !== '');
  assert.equal(file('seen'), 'none\n');
});
