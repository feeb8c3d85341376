// The commands that look at things, and what all of them say of a wrong configuration.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { saveSnapshot } from '../../agent/snapshot/file.ts';
import { reloadless } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { close, listen } from '../stack/server.ts';
import { live, type Stack, startStack } from '../stack/stack.ts';
import { tokenFile } from '../stack/token.ts';

let stack: Stack;
before(async () => {
  stack = await startStack();
  await stack.consul.register({ name: 'web', id: 'a', address: '127.0.0.1', port: 1001 });
  await stack.consul.register({ name: 'web', id: 'b', address: '127.0.0.1', port: 1002 });
  await stack.consul.health('b', 'critical');
});
after(() => stack.stop());

test('a usage error is 2, help and version are 0', async () => {
  for (const args of [['nonsense'], ['sync', '--nonsense'], ['sync', '--timeout', 'soon']]) {
    const { code, stderr } = await reloadless(args);
    assert.equal(code, 2, args.join(' '));
    assert.match(stderr, /^error: /);
  }
  assert.equal((await reloadless(['--help'])).code, 0);
  assert.match((await reloadless(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/);
});

test('a wrong configuration is 2 and one line, for every command that reads it', async () => {
  const file = stack.configure({ upstreams: { web: { max_fails: 'many' } } });
  for (const command of ['run', 'sync', 'check']) {
    const { code, stderr } = await stack.run(command, '-c', file);
    assert.equal(code, 2, command);
    const fault = 'upstreams.web.max_fails: "many" is not an integer from 0 to 65535';
    assert.equal(stderr, `reloadless: ${file}:1: ${fault}\n`);
  }
});

test('all faults of a configuration are named, a line each', async () => {
  const file = stack.configure({ owner: '', upstreams: { web: { max_fail: 1 } } });
  const { code, stderr } = await stack.run('check', '-c', file);
  assert.equal(code, 2);
  assert.equal(
    stderr,
    `reloadless: ${file}:1: owner: "" is not a string of 1 to 128 bytes without control characters
reloadless: ${file}:1: upstreams.web.max_fail: not a key that can be set here; did you mean max_fails?
`,
  );
});

test('no upstream at all is 2', async () => {
  const { code, stderr } = await stack.run('run', '-c', stack.configure({}));
  assert.equal(code, 2);
  assert.match(stderr, /^reloadless: no upstream is configured/);
});

test('a token or TLS file that cannot be used is 2 and one line, for every command', async () => {
  const upstreams = { web: {} };
  const empty = join(stack.folder, 'empty');
  writeFileSync(empty, '\n');
  const tls = { address: 'https://127.0.0.1:1' };
  const { admin } = stack.nginx;
  const openresty = [{ address: admin }, { address: `${admin}/`, token_file: '/no/such/token' }];
  const ofConsul: [object, RegExp][] = [
    [{ token_file: '/no/such/token' }, /token file \/no\/such\/token: ENOENT/],
    [{ token_file: empty }, /token file .* is empty/],
    [{ ...tls, tls: { ca_file: '/no/such/ca' } }, /consul\.tls: .*\/no\/such\/ca/],
    [{ ...tls, tls: { cert_file: empty } }, /consul\.tls: .*empty/],
  ];
  const cases = [
    ...ofConsul.map(([consul, fault]) => ({ config: { consul, upstreams }, fault, all: false })),
    { config: { openresty, upstreams }, fault: /token file \/no\/such\/token: ENOENT/, all: true },
  ];
  for (const { config, fault, all } of cases) {
    const file = stack.configure(config);
    const commands = [['run'], ['sync'], ['sync', '--dry-run'], ['check'], ['check', '--offline']];
    for (const command of all ? [...commands, ['status']] : commands) {
      const { code, stdout, stderr } = await reloadless([...command, '-c', file]);
      assert.equal(code, 2, `${command.join(' ')}: ${stderr}`);
      assert.match(stderr, new RegExp(`^reloadless: ${fault.source}.*\\n$`));
      if (command[0] !== 'run') assert.equal(stdout, '', command.join(' '));
    }
  }
});

test('check prints what would be watched and what is there', async () => {
  const upstreams = { web: { tags: ['x'] }, api: { service: 'web' }, wbe: {} };
  const file = stack.configure({ upstreams });
  const { code, stdout } = await stack.run('check', '-c', file);
  assert.equal(code, 0);
  assert.deepEqual(stdout.trim().split('\n').slice(-4), [
    'UPSTREAM  SOURCE               NOW',
    'web       service web, tags x  none of 2 instances is selected',
    'api       service web          2 instances: 1 passing, 1 critical',
    'wbe       service wbe          Consul knows no such service',
  ]);
});

test('check reaches every target, and says what it found there', async (t) => {
  const { nginx } = stack;
  const upstreams = { web: {} };
  const nobody = 'http://127.0.0.1:1';
  const openresty = [{ address: nginx.admin, token_file: tokenFile }, { address: nobody }];
  const consul = { address: stack.consul.address };
  const file = stack.configure({ consul, openresty, upstreams });
  const alone = await reloadless(['check', '-c', file]);
  assert.equal(alone.code, 1);
  assert.match(
    alone.stderr,
    /^reloadless: OpenResty at http:\/\/127\.0\.0\.1:1: connect ECONNREFUSED/,
  );
  const found =
    / version \d+ from \w+, \S+Z, \d+ upstreams, [\d.]+ of 16\.0 MiB free, instance \w+\n/;
  assert.match(alone.stdout, found);
  assert.match(alone.stdout, / owner reloadless: no agent\n/);
  assert.match(alone.stdout, new RegExp(`^config +${file}\n`));

  const agent = stack.agent('--service', 'web');
  t.after(() => agent.stop());
  await until('it has the lease', async () => (await live(nginx)).agents.reloadless !== undefined);
  const both = await reloadless(['check', '-c', file]);
  assert.match(
    both.stdout,
    new RegExp(` owner reloadless: agent of this configuration, pid ${agent.pid} on `),
  );
  const other = await stack.run('check', '--service', 'api');
  assert.match(other.stdout, / owner reloadless: agent of another configuration, pid /);

  const wrong = join(stack.folder, 'wrong.token');
  writeFileSync(wrong, 'wrong');
  const refused = await stack.run('check', '--service', 'web', '--token-file', wrong);
  assert.equal(refused.code, 2);
  assert.match(refused.stderr, /^reloadless: OpenResty at .*: 401 /);
});

test('check --offline asks neither Consul nor a target', async (t) => {
  let asked = 0;
  const server = createServer((_, answer) => {
    asked += 1;
    answer.end();
  });
  const address = `http://${await listen(server)}`;
  t.after(() => close(server));
  const flags = ['--service', 'web', '--consul', address, '--openresty', address];
  assert.equal((await reloadless(['check', ...flags, '--offline'])).code, 0);
  assert.equal(asked, 0);
});

test('check names every token and TLS file that cannot be used', async () => {
  const openresty = ['a', 'b'].map((name) => ({
    address: stack.nginx.admin,
    token_file: `/no/${name}`,
  }));
  const file = stack.configure({
    consul: { token_file: '/no/c' },
    openresty,
    upstreams: { web: {} },
  });
  const { code, stderr } = await reloadless(['check', '-c', file]);
  assert.equal(code, 2);
  assert.deepEqual(stderr.match(/(?<=token file )\/no\/./g), ['/no/c', '/no/a', '/no/b']);
});

test('check finds a filter that Consul refuses; --offline does not ask', async () => {
  const file = stack.configure({ upstreams: { web: { filter: 'no such (' } } });
  const { code, stderr } = await stack.run('check', '-c', file);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /^reloadless: web: filter "no such \(": Consul at .*: 500 .*boolean expression/,
  );
  assert.equal((await stack.run('check', '-c', file, '--offline')).code, 0);
});

test('check without Consul is 1', async () => {
  const { code, stderr } = await stack.run('check', '--service', 'web', '--consul', '127.0.0.1:1');
  assert.equal(code, 1);
  assert.match(stderr, /^reloadless: web: Consul at http:\/\/127\.0\.0\.1:1: connect ECONNREFUSED/);
});

test('status prints each peer, and as JSON what the target answers', async () => {
  await stack.run('sync', '--service', 'web');
  const table = await reloadless(['status', '--openresty', stack.nginx.admin]);
  assert.equal(table.code, 0);
  assert.match(table.stdout, /\nweb +127\.0\.0\.1:1001 +up +1 +0 +0 +0 +a\n/);
  const json = await reloadless(['status', '--json', '--openresty', stack.nginx.admin]);
  const answer = JSON.parse(json.stdout)[stack.nginx.admin];
  assert.equal(answer.upstreams.web.peers['127.0.0.1:1001'].id, 'a');
});

test('status without a target is 1', async () => {
  const { code, stderr } = await reloadless(['status', '--openresty', 'http://127.0.0.1:1']);
  assert.equal(code, 1);
  assert.match(stderr, /^reloadless: OpenResty at http:\/\/127\.0\.0\.1:1: connect ECONNREFUSED/);
});

test('status and check ask all targets at once, and say it in their order', async (t) => {
  const asked: ServerResponse[] = [];
  // Each answers when the other has been asked, too.
  const servers = [1, 2].map(() =>
    createServer((_, response) => {
      if (asked.push(response) < 2) return;
      for (const one of asked.splice(0)) one.writeHead(500).end();
    }),
  );
  t.after(() => Promise.all(servers.map(close)));
  const [first, second] = await Promise.all(servers.map((server) => listen(server)));
  const targets = ['--openresty', `http://${first}`, '--openresty', `http://${second}`];
  for (const run of [
    () => reloadless(['status', ...targets]),
    () => stack.run('check', '--service', 'web', ...targets),
  ]) {
    const [one, other] = (await run()).stderr.split('\n');
    assert.match(one ?? '', new RegExp(`${first}: 500`));
    assert.match(other ?? '', new RegExp(`${second}: 500`));
  }
});

test('snapshot show and verify', async () => {
  const path = join(stack.folder, 'some.snapshot');
  const document = { upstreams: { web: { peers: { '10.0.0.5:80': { weight: 2 } } } } };
  await saveSnapshot(path, { savedAt: new Date('2026-01-31T12:00:00.000Z'), document });
  assert.deepEqual(JSON.parse((await reloadless(['snapshot', 'show', path])).stdout), document);
  const whole = await reloadless(['snapshot', 'verify', path]);
  const time = '2026-01-31T12:00:00.000Z';
  assert.equal(whole.stdout, `${path}: whole, of ${time}, 1 upstreams, 1 peers\n`);
  writeFileSync(path, 'garbage\n');
  const damaged = await reloadless(['snapshot', 'verify', path]);
  assert.equal(damaged.code, 1);
  assert.equal(damaged.stderr, `reloadless: ${path}: the first line is not JSON\n`);
  const missing = await reloadless(['snapshot', 'show', '/no/such']);
  assert.deepEqual([missing.code, missing.stderr], [1, 'reloadless: /no/such: no such file\n']);
});
