// Runs the compose stack as the README says, with podman-compose in the place
// of docker compose, and checks it from outside.
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import got from 'got';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { makeImages } from './images.ts';
import { clear, podman, run } from './podman.ts';

const services = ['consul', 'openresty', 'agent', 'web-1', 'web-2'] as const;
type Service = (typeof services)[number];

const port = await freePort();
const url = `http://127.0.0.1:${port}/`;
const ports = { RELOADLESS_PORT: `${port}`, CONSUL_PORT: `${await freePort()}` };

async function compose(...args: string[]): Promise<string> {
  const { stdout, stderr } = await run('podman-compose', ['-p', 'reloadless', ...args], ports);
  return stdout + stderr;
}

/** The name that podman-compose gives the service's container. */
function container(service: Service): string {
  return `reloadless_${service}_1`;
}

async function inspect(service: Service, format: string): Promise<string> {
  return podman('inspect', '--format', format, container(service));
}

/** The folder of the host that holds the volume. */
async function volume(name: string): Promise<string> {
  return podman('volume', 'inspect', '--format', '{{.Mountpoint}}', `reloadless_${name}`);
}

async function exec(service: Service, ...command: string[]): Promise<string> {
  return podman('exec', container(service), ...command);
}

/** Who answered so many requests, one after the other. */
async function answers(count: number): Promise<string[]> {
  const names: string[] = [];
  for (let n = 0; n < count; n += 1) names.push((await got(url).text()).trim());
  return names;
}

/** Waits until requests reach exactly these services. */
async function reaches(...expected: Service[]): Promise<void> {
  await until(`${expected} answer, nobody else`, async () => {
    assert.deepEqual([...new Set(await answers(10))].sort(), expected);
    return true;
  });
}

/** The addresses in OpenResty's table, asked over the socket that the agent uses. */
async function peers(): Promise<string[]> {
  const socket = join(await volume('admin'), 'admin.sock');
  const answer = await got(`http://unix:${socket}:/v1/upstreams`, {
    enableUnixSockets: true,
    headers: { host: 'localhost' },
  }).json<{ upstreams: Record<string, { peers: object }> }>();
  return Object.keys(answer.upstreams.web?.peers ?? {});
}

/** Sends requests from four clients while the body runs; none may fail. */
async function underLoad(body: () => Promise<void>): Promise<void> {
  let ending = false;
  async function send(): Promise<void> {
    while (!ending) await got(url, { retry: { limit: 0 }, timeout: { request: 5_000 } });
  }
  const clients = Promise.all([send(), send(), send(), send()]);
  // A failure is told below, when the body is done.
  clients.catch(() => {});
  try {
    await body();
  } finally {
    ending = true;
  }
  await clients;
}

async function healthy(service: Service): Promise<void> {
  await until(`${service} is healthy`, async () => {
    await podman('healthcheck', 'run', container(service));
    return true;
  });
}

let passed = 0;

/** Runs one step; those after it build on it, so the first that fails ends the run. */
async function step(name: string, body: () => Promise<void>): Promise<void> {
  const start = Date.now();
  await body().catch((error) => {
    throw new Error(`not ok: ${name}\n${error}`);
  });
  passed += 1;
  console.log(`ok: ${name} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
}

async function check(): Promise<void> {
  await step('the stack comes up from nothing and is healthy', async () => {
    const output = await compose('up', '--build', '-d');
    const running = (await podman('ps', '--format', '{{.Names}}')).split('\n');
    assert.deepEqual(running.sort(), services.map(container).sort(), output);
    for (const service of ['consul', 'openresty', 'agent'] as const) await healthy(service);
  });

  await step('both demo services answer in turn', async () => {
    await reaches('web-1', 'web-2');
    const names = await answers(100);
    const first = names.filter((name) => name === 'web-1').length;
    assert.ok(first >= 40 && first <= 60, `web-1 answered ${first} of 100`);
  });

  await step('a demo service that is stopped gets no request; no client notices', async () => {
    await underLoad(async () => {
      await compose('stop', 'web-2');
      assert.equal((await peers()).length, 1);
      assert.deepEqual(new Set(await answers(50)), new Set(['web-1']));
    });
  });

  await step('it is back when it is started again', async () => {
    await underLoad(async () => {
      await compose('start', 'web-2');
      await reaches('web-1', 'web-2');
    });
  });

  await step('only the agent reaches the admin endpoint', async () => {
    // What OpenResty listens on, beside its own loopback: the traffic port.
    const pid = await inspect('openresty', '{{.State.Pid}}');
    const listening = ['tcp', 'tcp6']
      .flatMap((family) => readFileSync(`/proc/${pid}/net/${family}`, 'utf8').split('\n'))
      .map((line) => line.trim().split(/\s+/))
      .filter(([, local, , state]) => state === '0A' && !local?.startsWith('0100007F'))
      .map(([, local]) => Number.parseInt(local?.split(':')[1] ?? '', 16));
    assert.deepEqual(listening, [8080]);
    for (const service of ['consul', 'web-1', 'web-2'] as const) {
      await assert.rejects(exec(service, 'ls', '/run/reloadless'), /No such file/);
    }
    await exec('agent', 'test', '-S', '/run/reloadless/admin.sock');
    await assert.rejects(
      podman('exec', '--user=65534', container('agent'), 'ls', '/run/reloadless'),
      /Permission denied/,
    );
  });

  await step('only the two ports are published, and on loopback', async () => {
    const published = (await podman('ps', '--format', '{{.Ports}}')).split('\n').filter(Boolean);
    const expected = [`127.0.0.1:${port}->8080/tcp`, `127.0.0.1:${ports.CONSUL_PORT}->8500/tcp`];
    assert.deepEqual(published.sort(), expected.sort());
    await got(`http://127.0.0.1:${ports.CONSUL_PORT}/v1/status/leader`);
  });

  await step('the snapshot is in its volume, which OpenResty cannot write', async () => {
    const file = join(await volume('snapshot'), 'upstreams.snapshot');
    const [header = '', document = ''] = readFileSync(file, 'utf8').split('\n');
    assert.equal(JSON.parse(header).format, 1);
    assert.deepEqual(
      Object.keys(JSON.parse(document).upstreams.web.peers).sort(),
      (await peers()).sort(),
    );
    await assert.rejects(exec('openresty', 'touch', '/var/lib/reloadless/x'), /Read-only/);
  });

  await step('no process runs as root or has a capability', async () => {
    for (const service of services) {
      const pids = (await podman('top', container(service), 'hpid')).split('\n').slice(1);
      for (const pid of pids) {
        const status = readFileSync(`/proc/${pid.trim()}/status`, 'utf8');
        assert.match(status, /^Uid:(\t[1-9]\d*){4}$/m, service);
        assert.match(status, /^CapEff:\t0+$/m, service);
        assert.match(status, /^NoNewPrivs:\t1$/m, service);
      }
    }
  });

  await step('killed and started with nobody to ask, OpenResty serves the snapshot', async () => {
    await compose('stop', 'agent', 'consul');
    await podman('kill', container('openresty'));
    await compose('start', 'openresty');
    await reaches('web-1', 'web-2');
  });

  await step('all are in step again when Consul and the agent are back', async () => {
    await compose('start', 'consul', 'agent');
    await until('both are in Consul', async () => {
      const web = `http://127.0.0.1:${ports.CONSUL_PORT}/v1/health/service/web?passing`;
      return (await got(web).json<unknown[]>()).length === 2;
    });
    await healthy('agent');
    await reaches('web-1', 'web-2');
  });

  await step('down -v leaves nothing', async () => {
    const mounted = await volume('snapshot');
    await compose('down', '-v');
    assert.equal(await podman('ps', '--all', '--quiet'), '');
    assert.equal(await podman('volume', 'ls', '--quiet'), '');
    assert.ok(!existsSync(mounted));
  });
}

async function logs(): Promise<void> {
  for (const service of services) {
    const { stdout, stderr } = await run('podman', ['logs', '--tail=40', container(service)]).catch(
      (error) => ({ stdout: '', stderr: `${error}` }),
    );
    console.log(`--- ${service}\n${stdout}${stderr}`);
  }
}

async function main(): Promise<void> {
  if (process.getuid?.() !== 0) {
    throw new Error('test:compose makes images and networks of its own: run it as root');
  }
  // What a run that was killed has left.
  await clear();
  console.log('Making stand-ins for the base images: a minute or two the first time …');
  await makeImages();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => clear().finally(() => process.exit(1)));
  }
  let failed = 0;
  console.log('Building the images and starting the stack …');
  try {
    await check();
  } catch (error) {
    failed = 1;
    console.error(`${error}`);
    await logs();
  } finally {
    // podman-compose 1.0.3 leaves the network.
    await clear();
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exitCode = failed;
}

await main();
