// Follows the pages of docs/migration to the letter: writes their files, runs
// their commands in a shell, on a real Consul with a service web and on a real
// nginx, and compares what they print. Only where things are is another place.
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type TestContext, test } from 'node:test';
import { environment, main } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { checkout, findNginx } from '../stack/install.mjs';
import { type Step, stepsOf } from '../stack/page.ts';
import { until } from '../stack/process.ts';
import { type Stack, startStack } from '../stack/stack.ts';

const pages = join(checkout, 'docs/migration');
/** Those that only tell which page is whose. */
const index = 'README.md';

for (const name of readdirSync(pages).filter((page) => page !== index)) {
  test(`${name} says what happens`, async (t) => {
    const steps = stepsOf(readFileSync(join(pages, name), 'utf8'));
    assert.ok(
      steps.some((step) => step.kind === 'command' && /reloadless import/.test(step.command)),
    );
    assert.ok(steps.some((step) => step.kind === 'command' && /^for .*curl/.test(step.command)));
    const machine = await startMachine(t);
    for (const step of steps) await machine.follow(step);
  });
}

/** A machine as the pages suppose it: an nginx, the include, and two instances of web in Consul. */
async function startMachine(t: TestContext): Promise<{ follow: (step: Step) => Promise<void> }> {
  const stack = await startStack({
    // What a page puts there comes first, and so answers every host.
    plain: true,
    http: ({ port }) => `
      include conf.d/*.conf;
      server { listen 127.0.0.1:${port}; server_name none.invalid; return 204; }`,
  });
  const home = join(stack.folder, 'home');
  mkdirSync(home);
  const ofNginx = join(stack.folder, 'nginx');
  writeFileSync(join(ofNginx, 'reloadless.conf'), stack.nginx.include());
  const env = environment(await writeCommands(stack, home));
  t.after(async () => {
    const { status } = spawnSync('systemctl', ['stop', 'reloadless'], { env });
    await stack.stop();
    assert.equal(status, 0, 'the agent is told to end');
  });
  for (const id of ['web-1', 'web-2']) {
    const backend = await Backend.start(id);
    t.after(() => backend.stop());
    await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port: backend.port });
  }

  const { port } = new URL(stack.consul.address);

  /** What is on the page, as it is on this machine. */
  function here(page: string): string {
    return page
      .replaceAll('http://127.0.0.1:8500', stack.consul.address)
      .replaceAll('http://127.0.0.1/', `${stack.nginx.url}/`)
      .replaceAll('listen 80;', `listen 127.0.0.1:${stack.nginx.port};`)
      .replaceAll('connect("127.0.0.1", 8500)', `connect("127.0.0.1", ${port})`)
      .replaceAll('/etc/nginx/', `${ofNginx}/`)
      .replaceAll('/etc/reloadless/', `${home}/`);
  }

  async function run(command: string): Promise<string> {
    const shell = spawn('bash', ['-c', `exec 2>&1; ${here(command)}`], { cwd: home, env });
    return (await text(shell.stdout)).replaceAll(`${ofNginx}/`, '/etc/nginx/');
  }

  async function follow(step: Step): Promise<void> {
    if (step.kind === 'file') {
      const path = here(step.path.startsWith('/') ? step.path : join(home, step.path));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, here(step.text));
      return;
    }
    // A look is repeated until what came before it has arrived.
    const isLook = /^(for|reloadless check) /.test(step.command);
    let printed = await run(step.command);
    if (isLook) {
      await until(step.command, async () => {
        printed = await run(step.command);
        return printed === step.prints;
      }).catch(() => {});
    }
    assert.equal(printed, step.prints, step.command);
  }

  return { follow };
}

/** The commands of the pages, for this machine. @returns the environment that has them */
async function writeCommands(stack: Stack, home: string): Promise<NodeJS.ProcessEnv> {
  const folder = join(stack.folder, 'bin');
  mkdirSync(folder);
  const nginx = `${findNginx()?.bin} -p ${join(stack.folder, 'nginx')} -c nginx.conf`;
  const flags = `${stack.flags.map((flag) => `'${flag}'`).join(' ')} -c ${home}/reloadless.yml`;
  const commands = {
    reloadless: `case $1 in import) exec node ${main} "$@" ;; *) exec node ${main} "$@" ${flags} ;; esac`,
    nginx: `exec ${nginx} "$@"`,
    systemctl: `
case "$*" in
'reload nginx') kill -HUP ${stack.nginx.pid} ;;
'enable --now reloadless')
    setsid reloadless run > ${home}/agent.log 2>&1 &
    echo $! > ${home}/agent.pid ;;
'stop reloadless') [ ! -e ${home}/agent.pid ] || kill "$(cat ${home}/agent.pid)" ;;
*) echo "systemctl: $*: what is that?" ; exit 1 ;;
esac`,
  };
  for (const [name, script] of Object.entries(commands)) {
    writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  }
  assert.ok(existsSync(main), 'the agent is built');
  return { PATH: `${folder}:${process.env.PATH}` };
}
