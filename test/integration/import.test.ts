// `reloadless import`, on configurations in the shapes that are found in public
// repositories (test/cases/import), each with what is printed for it.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { importFiles } from '../../agent/cli/import.ts';
import { parseConfig } from '../../agent/config/file.ts';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { divider } from '../../agent/import/print.ts';
import { reloadless } from '../stack/agent.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout, findNginx } from '../stack/install.mjs';
import { freePort } from '../stack/ports.ts';
import { tokenFile } from '../stack/token.ts';

const folder = join(checkout, 'test/cases/import');
const { folder: temporary, remove } = temporaryFolder();
after(remove);

interface Printed {
  code: number;
  stdout: string;
  stderr: string[];
}

/** Without the folder in the messages. */
function run(...files: string[]): Printed {
  const out: string[] = [];
  const err: string[] = [];
  const code = importFiles(files, {
    out: (line) => out.push(line),
    err: (line) => err.push(line.replaceAll(`${folder}/`, '')),
  });
  return { code, stdout: out.map((line) => `${line}\n`).join(''), stderr: err };
}

const cases = readdirSync(folder).filter((name) => /\.(conf|ctmpl|txt)$/.test(name));
const unreadable = readdirSync(join(folder, 'unreadable'));

test('there are at least 20', () => assert.ok(cases.length >= 20));

for (const name of cases) {
  test(`${name}: what is printed is what is expected, and what nginx and the agent take`, async () => {
    const { code, stdout, stderr } = run(join(folder, name));
    const said = stderr.map((line) => `${line}\n`).join('');
    const expected = readFileSync(join(folder, 'expected', name), 'utf8');
    assert.equal(`${stdout}# --- left out ---\n${said}`, expected);
    assert.equal(code, stderr.length === 0 ? 0 : 3);
    for (const line of stderr) assert.match(line, /^[\w./-]+:\d+: .+: .+$/);
    if (stdout === '') return;
    const [file = '', nginx = ''] = stdout.split(`${divider}\n`);
    const config = resolveConfig({}, {}, parseConfig(file, name));
    await nginxTakes(nginx, [...config.upstreams.keys()]);
  });
}

/** Has nginx test what is printed, in an http block beside a server that proxies to each upstream. */
async function nginxTakes(lines: string, upstreams: string[]): Promise<void> {
  const include = join(temporary, 'reloadless.conf');
  const port = await freePort();
  const shipped = readFileSync(join(checkout, 'nginx/reloadless.conf'), 'utf8')
    .replaceAll('/usr/share/reloadless/', checkout)
    .replaceAll('/etc/reloadless/admin.token', tokenFile)
    .replaceAll('/var/lib/reloadless/upstreams.snapshot', join(temporary, 'none.snapshot'))
    .replaceAll('127.0.0.1:9410', `127.0.0.1:${port}`);
  writeFileSync(include, shipped);
  assert.ok(lines.includes('include /etc/nginx/reloadless.conf;'));
  const locations = upstreams.map((name) => `location /${name}/ { proxy_pass http://${name}; }`);
  const { status, stderr } = await testNginx(`
    ${lines.replace('/etc/nginx/reloadless.conf', include)}
    server { listen 127.0.0.1:${await freePort()}; ${locations.join(' ')} }`);
  assert.equal(status, 0, `${stderr}\n${lines}`);
  assert.doesNotMatch(stderr, /\[(warn|error)\]/);
}

/** `nginx -t`. @param http what stands in its http block */
async function testNginx(http: string): Promise<{ status: number | null; stderr: string }> {
  const found = findNginx();
  assert.ok(found, 'nginx is there');
  mkdirSync(join(temporary, 'logs'), { recursive: true });
  const modules = found.modules.map((path) => `load_module ${path};`).join('\n');
  const text = `${modules}\npid nginx.pid;\nerror_log logs/error.log;\nevents {}\nhttp {${http}\n}\n`;
  writeFileSync(join(temporary, 'nginx.conf'), text);
  return spawnSync(found.bin, ['-t', '-p', temporary, '-c', 'nginx.conf'], { encoding: 'utf8' });
}

test('what is a configuration, nginx and import say alike', async () => {
  const port = await freePort();
  const texts = [
    'return 200 "a;b{c}";',
    "return 200 'it''s';",
    'return 200 a"b;',
    'return 200 "a" ;',
    'return 200 "a"b;',
    'return 200 "a\nb";',
    'return 200 "a;',
    'return 200',
    'return 200; }',
    'return 200 a#b;',
    'return 200 # a; comment {\n "x";',
    '"return" 200;',
    ';',
    '{ }',
    'set $x a\\;b;',
    'set $x \\"a;',
    'set $x "a\\"b";',
    'set $x "";',
    `set $x \${host}x;`,
    'if ($host = "a") { return 200; }',
    'location ~ ^/a{2}$ { return 200; }',
    'location ~ "^/a{2}$" { return 200; }',
    'location / { return 200; } }',
    'rewrite_by_lua_block { local a = "}" -- it\'s {\n }',
    'rewrite_by_lua_block { local a = [[ } ]] --[[ { ]] }',
    'rewrite_by_lua_block { local a = { { } }',
  ];
  for (const text of texts) {
    const server = `server { listen 127.0.0.1:${port}; ${text} }`;
    const { status, stderr } = await testNginx(server);
    const isTaken = runChanged('server.conf', [`http {${server}`, '}']).code !== 1;
    assert.equal(isTaken, status === 0, `${text}\n${stderr}`);
  }
});

for (const name of unreadable) {
  test(`unreadable/${name}: one line that says where, and nothing is printed`, () => {
    const { code, stdout, stderr } = run(join(folder, 'unreadable', name));
    assert.deepEqual([code, stdout, stderr.length], [1, '', 1]);
    assert.match(stderr[0] ?? '', /^reloadless: unreadable\/\S+:\d+: /);
  });
}

/** The same file with other lines; the files that it includes are where they were. */
function runChanged(name: string, lines: string[]): Printed {
  const path = join(temporary, name);
  writeFileSync(path, lines.join('\n'));
  return run(path);
}

const configurations = cases.filter((name) => !name.endsWith('.txt'));

/** A line of an upstream behind which another directive may stand. */
const inUpstream = /^\s*(upstream .*\{|\S*server [^{}]*;)\s*$/;
/** What is said where a block as a whole is not carried over. */
const leftOut = /stays as it is|not carried over$/;

test('a directive that nobody knows is named, wherever it stands in an upstream', () => {
  let tried = 0;
  for (const name of configurations) {
    const lines = readFileSync(join(folder, name), 'utf8').split('\n');
    const isFragment = !lines.some((line) => line.includes('upstream '));
    for (const [i, line] of lines.entries()) {
      if (isFragment || !inUpstream.test(line)) continue;
      const { code, stderr } = runChanged(name, lines.toSpliced(i + 1, 0, 'strange thing;'));
      const isNamed = stderr.some((said) => said.includes(`${name}:${i + 2}: strange thing: `));
      const isLeftOut = stderr.some((said) => leftOut.test(said));
      assert.equal(code, 3);
      assert.ok(isNamed || isLeftOut, `${name}:${i + 2}\n${stderr.join('\n')}`);
      tried += Number(isNamed);
    }
  }
  assert.ok(tried >= 35, String(tried));
});

test('a parameter of a server that nobody knows is named', () => {
  let tried = 0;
  for (const name of configurations) {
    const lines = readFileSync(join(folder, name), 'utf8').split('\n');
    for (const [i, line] of lines.entries()) {
      const changed = line.replace(
        /^([^#]*\bserver [^{};]*(?:\{\{[^{}]*\}\}[^{};]*)*);/,
        '$1 strange=1;',
      );
      if (changed === line) continue;
      const { code, stderr } = runChanged(name, lines.toSpliced(i, 1, changed));
      assert.equal(code, 3);
      const where = new RegExp(`${name}:${i + 1}: .*strange=1: (not carried over|an upstream)`);
      const isNamed = stderr.some((said) => where.test(said));
      // What stands in an upstream of upsync is replaced by what Consul has.
      const isReplaced = /upsync|balancer_by_lua|stream \{/.test(lines.join('\n'));
      const isLeftOut = stderr.some((said) => leftOut.test(said));
      assert.ok(isNamed || isReplaced || isLeftOut, `${name}:${i + 1}\n${stderr.join('\n')}`);
      tried += Number(isNamed);
    }
  }
  assert.ok(tried >= 50, String(tried));
});

test('a file that is cut off is refused, wherever it is cut', () => {
  for (const name of ['static-weights.conf', 'template-nomad.ctmpl', 'openresty.conf']) {
    const text = readFileSync(join(folder, name), 'utf8');
    const start = text.indexOf('http {') + 'http {'.length;
    const end = text.lastIndexOf('}');
    for (let at = start; at <= end; at += 1) {
      const { code, stdout } = runChanged(name, [text.slice(0, at)]);
      assert.deepEqual([code, stdout], [1, ''], `${name} up to "${text.slice(at - 20, at)}"`);
    }
  }
});

test('the command prints both parts, and says by its exit code whether all was carried over', async () => {
  const whole = await reloadless(['import', join(folder, 'template-plain.ctmpl')]);
  assert.deepEqual([whole.code, whole.stderr], [0, '']);
  assert.match(whole.stdout, /^upstreams:\n {2}blog:\n[\s\S]*\n# --- nginx ---\n[\s\S]*\n}\n$/);
  const several = await reloadless([
    'import',
    join(folder, 'upsync-health.conf'),
    join(folder, 'dyups-detail.txt'),
  ]);
  assert.equal(several.code, 3);
  assert.match(several.stdout, / {2}search:\n[\s\S]* {2}second:\n/);
  const missing = await reloadless(['import', '/no/such.conf']);
  assert.deepEqual([missing.code, missing.stdout], [1, '']);
  assert.match(missing.stderr, /^reloadless: \/no\/such\.conf: ENOENT/);
  assert.equal((await reloadless(['import'])).code, 2);
});
