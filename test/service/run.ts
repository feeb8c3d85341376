// Follows the README's steps in a clean Debian that systemd has booted, and
// looks at what came of them.
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { findConsul } from '../stack/install.mjs';
import { until } from '../stack/process.ts';
import { Machine } from './machine.ts';
import { blocks, clone } from './readme.ts';

const title = 'Put it beside your nginx';
const [pack = '', place = '', start = '', ...more] = blocks(title, 'sh');
const [config = ''] = blocks(title, 'yaml');
const [http = ''] = blocks(title, 'nginx');
const [, socket = ''] = blocks('The admin API', 'sh', 'docs/admin-api.md');
assert.ok(http && config && start && more.length === 0 && socket, 'the pages have other blocks');

const installed = '/usr/local/lib/node_modules/reloadless';
const snapshot = '/var/lib/reloadless/upstreams.snapshot';
const token = '/etc/reloadless/admin.token';

const consulUnit = `[Unit]
Before=reloadless.service
[Service]
ExecStart=/usr/local/bin/consul agent -server -bootstrap-expect=1 -bind=127.0.0.1 \\
    -data-dir=/var/lib/consul -config-dir=/etc/consul
Restart=always
[Install]
WantedBy=multi-user.target
`;

/** Two instances; Consul has the name of the one, the agent looks it up. */
const services = [
  { name: 'web', id: 'blue', address: '127.0.0.1', port: 8081 },
  { name: 'web', id: 'green', address: 'green.test', port: 8082 },
];

const backends = services
  .map(
    ({ id, port }) => `server { listen 127.0.0.1:${port}; location / { return 200 "${id}\\n"; } }`,
  )
  .join('\n');

const machine = await Machine.boot();

function write(path: string, text: string): void {
  writeFileSync(machine.path(path), text);
}

/** What requests get, each answer once. */
async function answers(): Promise<string> {
  const asked = await machine.run(
    'for i in 1 2 3 4 5 6; do curl -s http://127.0.0.1/; done | sort -u',
  );
  return asked.replaceAll('\n', ' ');
}

async function reaches(expected: string): Promise<void> {
  await until(`${expected} answers`, async () => {
    assert.equal(await answers(), expected);
    return true;
  });
}

/** One property of a unit, as systemd has it. */
async function property(name: string, unit = 'reloadless'): Promise<string> {
  return machine.run(`systemctl show --property=${name} --value ${unit}`);
}

async function journal(): Promise<string> {
  return machine.run('journalctl --unit=reloadless --output=cat --no-pager');
}

/** Tells Consul that an instance is ill, or is not. */
async function maintenance(id: string, enable: boolean): Promise<void> {
  const url = `http://127.0.0.1:8500/v1/agent/service/maintenance/${id}?enable=${enable}`;
  await machine.run(`curl -sfX PUT '${url}'`);
}

let passed = 0;

/** Runs one step; those after it build on it, so the first that fails ends the run. */
async function step(name: string, body: () => Promise<void>): Promise<void> {
  const began = Date.now();
  await body().catch((error) => {
    throw new Error(`not ok: ${name}\n${error instanceof Error ? error.stack : error}`);
  });
  passed += 1;
  console.log(`ok: ${name} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
}

/** nginx and Consul with two instances: what is there before Reloadless. */
async function prepare(): Promise<void> {
  const bin = findConsul();
  if (bin === undefined) throw new Error('no consul: run node test/stack/install.mjs serve');
  copyFileSync(bin, machine.path('/usr/local/bin/consul'));
  mkdirSync(machine.path('/etc/consul'));
  write(
    '/etc/consul/consul.json',
    JSON.stringify({ services, performance: { raft_multiplier: 1 } }),
  );
  write('/etc/systemd/system/consul.service', consulUnit);
  write('/etc/nginx/conf.d/backends.conf', backends);
  const hosts = readFileSync(machine.path('/etc/hosts'), 'utf8');
  write('/etc/hosts', `${hosts}127.0.0.1 green.test\n`);
  await machine.run('systemctl enable --quiet --now consul');
}

async function check(): Promise<void> {
  await prepare();

  await step('the package is made and installed from a clone', async () => {
    mkdirSync(machine.path('/root/reloadless'));
    clone(machine.path('/root/reloadless'));
    const [build = '', install = '', ...others] = pack.trim().split('\n');
    assert.deepEqual(others, []);
    // As in a clone that is in use: a module of yesterday does not go along.
    mkdirSync(machine.path('/root/reloadless/dist'));
    write('/root/reloadless/dist/yesterday.js', '');
    await machine.run(build, { cwd: '/root/reloadless', network: true });
    // Without a way to the registry.
    await machine.run(install, { cwd: '/root/reloadless' });
  });

  await step('it holds what is needed, and nothing else', async () => {
    const list = (folder: string) => readdirSync(machine.path(`${installed}/${folder}`)).sort();
    const expected = [
      'LICENSE',
      'README.md',
      'dist',
      'lua',
      'nginx',
      'node_modules',
      'package.json',
    ];
    assert.deepEqual(list('.'), expected);
    assert.deepEqual(list('nginx'), ['nginx.conf', 'reloadless.conf', 'reloadless.service']);
    const dist = await machine.run(`cd ${installed}/dist && find . -type f`);
    assert.match(dist, /^\.\/main\.js$/m);
    assert.doesNotMatch(dist, /(?<!\.js)$|yesterday/m);
    assert.equal(
      await machine.try(`ls ${installed}/node_modules/typescript`).then((e) => e.code),
      2,
    );
    await machine.run('rm -r /root/reloadless');
  });

  await step('the other steps lead to requests that reach the instances', async () => {
    await machine.run('apt-get -q update && apt-get -qy install libnginx-mod-http-lua lua-cjson', {
      network: true,
    });
    await machine.run(place);
    const [, body = ''] = /^http \{\n([\s\S]*)^\}$/m.exec(http) ?? [];
    const nginx = readFileSync(machine.path('/etc/nginx/nginx.conf'), 'utf8');
    write(
      '/etc/nginx/nginx.conf',
      nginx.replace(/^http \{$/m, (line) => `${line}\n${body}`),
    );
    await machine.run('rm /etc/nginx/sites-enabled/default && systemctl reload nginx');
    write('/etc/reloadless/reloadless.yml', config);
    await machine.run(start);
    await reaches('blue green');
  });

  await step('a change is pushed', async () => {
    await maintenance('green', true);
    await reaches('blue');
    await maintenance('green', false);
    await reaches('blue green');
  });

  await step('systemd measures an exposure below 3, that which the README says', async () => {
    const shown = await machine.run('systemd-analyze security --no-pager reloadless');
    const [, exposure = ''] = /exposure level for reloadless.service: ([\d.]+)/.exec(shown) ?? [];
    console.log(`    exposure ${exposure}`);
    assert.ok(exposure !== '' && Number(exposure) < 3, shown);
    const readme = readFileSync(machine.path(`${installed}/README.md`), 'utf8');
    assert.ok(readme.includes(`gives it ${exposure} of 10`), exposure);
    const status = await machine.run(`cat /proc/${await property('MainPID')}/status`);
    assert.match(status, /^Uid:(\t[1-9]\d*){4}$/m);
    for (const set of ['Prm', 'Eff', 'Bnd', 'Amb'])
      assert.match(status, new RegExp(`^Cap${set}:\t0+$`, 'm'));
    assert.match(status, /^NoNewPrivs:\t1$/m);
    assert.match(status, /^Seccomp:\t2$/m);
  });

  await step('no other local user reads or writes its files', async () => {
    await until('there is a snapshot', () => machine.run(`test -f ${snapshot} && echo yes`));
    for (const user of ['nobody', 'www-data']) {
      for (const path of [token, snapshot]) {
        for (const how of ['cat', 'tee -a']) {
          const { code, stderr } = await machine.try(
            `runuser -u ${user} -- ${how} ${path} </dev/null`,
          );
          assert.equal(code, 1, `${user}: ${how} ${path}`);
          assert.match(stderr, /Permission denied/);
        }
      }
    }
    const rights = await machine.run(
      `stat -c '%a %U:%G %n' ${token} ${snapshot} /var/lib/reloadless /run/reloadless`,
    );
    assert.equal(
      rights,
      `640 root:reloadless ${token}
640 reloadless:reloadless ${snapshot}
750 reloadless:reloadless /var/lib/reloadless
750 reloadless:reloadless /run/reloadless`,
    );
  });

  await step('a reload takes the new configuration, and refuses a bad one', async () => {
    write('/etc/reloadless/reloadless.yml', `${config}\nbad: 1\n`);
    await machine.run('systemctl reload reloadless');
    await until('it is refused', async () => /configuration not changed/.test(await journal()));
    write('/etc/reloadless/reloadless.yml', `${config}  other: {}\n`);
    await machine.run('systemctl reload reloadless');
    await until('it is taken', async () => /configuration read again/.test(await journal()));
    write('/etc/reloadless/reloadless.yml', config);
    await machine.run('systemctl reload reloadless');
  });

  await step('the unit never gives up', async () => {
    write('/etc/reloadless/reloadless.yml', `${config}\nbad: 1\n`);
    // systemd's own limit is 5 starts within 10 s, whoever starts it.
    await machine.run('for i in 1 2 3 4 5 6 7 8; do systemctl restart reloadless; done');
    await until('it ends and is started again', async () => {
      assert.notEqual(await property('ActiveState'), 'failed');
      return Number(await property('NRestarts')) >= 2;
    });
    await machine.run('systemctl kill --signal=KILL reloadless');
    write('/etc/reloadless/reloadless.yml', config);
    await until('it runs', async () => (await property('SubState')) === 'running');
    await maintenance('green', true);
    await reaches('blue');
    await maintenance('green', false);
    await reaches('blue green');
  });

  await step('nginx started with all else stopped serves from the snapshot', async () => {
    await machine.run('systemctl stop reloadless consul && systemctl restart nginx');
    await reaches('blue green');
    await machine.run('systemctl start consul reloadless');
  });

  await step('all serve again after a reboot', async () => {
    await machine.reboot();
    await reaches('blue green');
    await until('the agent runs', async () => (await property('SubState')) === 'running');
    await maintenance('green', true);
    await reaches('blue');
    await maintenance('green', false);
  });

  await step('the admin API on a unix socket that nobody else reaches', async () => {
    const include = readFileSync(machine.path('/etc/nginx/reloadless.conf'), 'utf8');
    write(
      '/etc/nginx/reloadless.conf',
      include
        .replace('listen 127.0.0.1:9410;', 'listen unix:/run/reloadless/admin.sock;')
        .replace(`token_file = "${token}",`, ''),
    );
    write(
      '/etc/reloadless/reloadless.yml',
      `openresty: [{ address: "unix:/run/reloadless/admin.sock" }]\n${config}`,
    );
    await machine.run(`rm ${token}`);
    await machine.run(socket);
    await machine.run('systemctl restart nginx reloadless');
    await reaches('blue green');
    const ask = 'curl -sS --unix-socket /run/reloadless/admin.sock http://localhost/v1/status';
    await machine.run(ask);
    for (const user of ['nobody', 'www-data']) {
      const { code, stderr } = await machine.try(`runuser -u ${user} -- ${ask}`);
      assert.equal(code, 7, stderr);
    }
    await maintenance('green', true);
    await reaches('blue');
    await maintenance('green', false);
    await reaches('blue green');
  });

  await step("a stop of the agent leaves nginx's socket, and requests", async () => {
    await machine.run('systemctl stop reloadless');
    await machine.run('test -S /run/reloadless/admin.sock');
    assert.equal(await answers(), 'blue green');
    await machine.run('systemctl start reloadless');
  });

  await step('a killed nginx starts over the socket that it has left', async () => {
    await machine.run('systemctl kill --signal=KILL nginx');
    await until('nginx is down', async () => (await property('ActiveState', 'nginx')) === 'failed');
    await machine.run('test -S /run/reloadless/admin.sock');
    await machine.run('systemctl start nginx');
    await reaches('blue green');
  });

  await step('nginx finds the folder after a reboot, the agent running or not', async () => {
    await machine.run('systemctl disable --quiet reloadless');
    await machine.reboot();
    await reaches('blue green');
    await machine.run('systemctl enable --quiet --now reloadless');
    await maintenance('green', true);
    await reaches('blue');
  });
}

async function logs(): Promise<void> {
  for (const unit of ['reloadless', 'nginx', 'consul']) {
    const { stdout } = await machine.try(`journalctl -u ${unit} -n 20 --output=cat --no-pager`);
    console.log(`--- ${unit}\n${stdout}`);
  }
  console.log((await machine.try('tail -n 20 /var/log/nginx/error.log')).stdout);
}

let failed = 0;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, () => machine.stop().finally(() => process.exit(1)));
}
try {
  await check();
} catch (error) {
  failed = 1;
  console.error(`${error}`);
  await logs();
} finally {
  await machine.stop();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed;
