// `npm run bench:cost`: what the agent costs beside the floor of any sidecar in
// Node, bare-loop.mjs, which does the same blocking query and the same PATCH.
// Between the two stands the same loop by the packages that the agent is made of
// (packages-loop.mjs). All of them are up at once, each with a service and
// upstreams of its own, and take turns, after a minute of changes for each
// (docs/discoveries/first-minutes.md). At last what an idle agent with a large
// table costs.
//
//   npm run bench:cost -- [--warm-up 60] [--rounds 6] [--seconds 5] [--idle 60]
//                         [--agents other/dist/main.js]
//
// --agents names other builds (comma-separated) to be measured beside this one.
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Backend } from '../stack/backend.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { start, stop, until } from '../stack/process.ts';
import { authorization, tokenFile } from '../stack/token.ts';
import { percentile, spread } from './statistics.ts';
import { cpuMs, residentMiB } from './usage.ts';

const { values: options } = parseArgs({
  options: {
    'warm-up': { type: 'string', default: '60' },
    rounds: { type: 'string', default: '6' },
    seconds: { type: 'string', default: '5' },
    idle: { type: 'string', default: '60' },
    agents: { type: 'string', default: '' },
  },
});
const warmUp = Number(options['warm-up']);
const [rounds, seconds, idle] = [options.rounds, options.seconds, options.idle].map(Number) as [
  number,
  number,
  number,
];
const changesPerSecond = 20;
const requestsPerSecond = 400;
const instances = 22;
const idleServices = 50;

interface Sidecar {
  name: string;
  /** The command that watches these services. */
  command: (services: string[]) => string[];
  pid: number;
  /** CPU ms for one change, of each round. */
  perChange: number[];
  /** p99 of the requests in ms, of each round. */
  p99: number[];
}

const { folder, remove } = temporaryFolder();
const backend = await Backend.start('ok');
const consul = await Consul.start(join(folder, 'consul'));
const nginx = await Nginx.start(join(folder, 'nginx'), {
  workers: 1,
  http: ({ port }) => `
    upstream any {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
        keepalive 64;
    }
    server {
        listen 127.0.0.1:${port};
        location / {
            set $reloadless_upstream $arg_upstream;
            proxy_pass http://any;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }`,
});
const client = new Agent({ keepAlive: true, maxSockets: 16 });
const ended: (() => Promise<void>)[] = [];

/** Starts a command. @returns its pid */
function run(command: string[]): number {
  const [program = '', ...args] = command;
  const child = start(program, args, join(folder, 'sidecars.log'));
  ended.push(() => stop(child));
  return child.pid ?? 0;
}

/** Each agent has an owner of its own: two of one would not run side by side. */
function agentCommand(main: string, services: string[]): string[] {
  const name = `${services[0]}`;
  const config = join(folder, `${name}.yml`);
  const upstreams = Object.fromEntries(services.map((service) => [service, {}]));
  const snapshot = join(folder, `${name}.snapshot`);
  const consulAt = { address: consul.address };
  const openresty = [{ address: nginx.admin, token_file: tokenFile }];
  writeFileSync(
    config,
    JSON.stringify({ consul: consulAt, openresty, owner: name, snapshot, upstreams }),
  );
  return [process.execPath, main, 'run', '-c', config];
}

/** One request. @returns ms until its answer */
async function timed(upstream: string): Promise<number> {
  const began = performance.now();
  const sent = request(`${nginx.url}/?upstream=${upstream}`, { agent: client });
  sent.end();
  const [response] = await once(sent, 'response');
  response.resume();
  await once(response, 'end');
  if (response.statusCode !== 200) throw new Error(`${upstream}: ${response.statusCode}`);
  return performance.now() - began;
}

/** Sends requests at a steady rate. @returns their p99 in ms */
async function load(upstream: string): Promise<number> {
  const times: Promise<number>[] = [];
  const began = performance.now();
  for (let i = 0; i < seconds * requestsPerSecond; i += 1) {
    const due = began + (i * 1000) / requestsPerSecond;
    if (due > performance.now()) await sleep(due - performance.now());
    times.push(timed(upstream));
  }
  return percentile(await Promise.all(times), 0.99);
}

/** An instance of a service: the first answers, the others stand by as backups. */
async function register(name: string, i: number, weight: number): Promise<void> {
  await consul.register({
    name,
    id: `${name}-${i}`,
    address: i === 0 ? '127.0.0.1' : `127.1.0.${i}`,
    port: backend.port,
    ...(i === 0 ? {} : { meta: { backup: 'true' } }),
    weights: { Passing: weight, Warning: 1 },
  });
}

/** Changes one instance after the other, `changesPerSecond` times a second. */
async function change(name: string, round: number, time = seconds): Promise<number> {
  const began = performance.now();
  const changes = time * changesPerSecond;
  for (let i = 0; i < changes; i += 1) {
    const due = began + (i * 1000) / changesPerSecond;
    if (due > performance.now()) await sleep(due - performance.now());
    await register(name, i % instances, 2 + ((round * changes + i) % 1000));
  }
  return changes;
}

async function measureChanges(sidecars: Sidecar[]): Promise<void> {
  for (const { name, command } of sidecars) {
    for (let i = 0; i < instances; i += 1) await register(name, i, 1);
    const sidecar = sidecars.find((one) => one.name === name) as Sidecar;
    sidecar.pid = run(command([name]));
    await until(`${name} serves`, async () => (await timed(name)) > 0);
  }
  for (const { name } of sidecars) await change(name, 0, warmUp);
  const quiet: number[] = [];
  for (let round = 1; round <= rounds; round += 1) {
    const turn = sidecars.map((_, i) => sidecars[(i + round) % sidecars.length] as Sidecar);
    for (const sidecar of turn) {
      const calm = await load(sidecar.name);
      const before = cpuMs(sidecar.pid);
      const loaded = load(sidecar.name);
      const changes = await change(sidecar.name, round);
      const p99 = await loaded;
      await sleep(300);
      quiet.push(calm);
      sidecar.perChange.push((cpuMs(sidecar.pid) - before) / changes);
      sidecar.p99.push(p99 - calm);
    }
  }
  const bare = sidecars[0] as Sidecar;
  process.stdout.write(
    `${rounds} rounds of ${seconds} s, ${changesPerSecond} changes a second of a service of ${instances} instances, after ${warmUp} s of them\n` +
      `requests' p99 without changes: ${spread(quiet, 2)} ms\n` +
      row('', 'CPU ms a change', 'of bare', 'p99 + ms', 'RSS MiB', 'of bare'),
  );
  for (const { name, perChange, p99, pid } of sidecars) {
    const ratios = perChange.map((ms, i) => ms / (bare.perChange[i] ?? Number.NaN));
    const memory = residentMiB(pid);
    process.stdout.write(
      row(
        ...[name, spread(perChange, 2), spread(ratios, 2), spread(p99, 2)],
        ...[memory.toFixed(0), (memory / residentMiB(bare.pid)).toFixed(2)],
      ),
    );
  }
}

async function measureIdle(sidecars: Sidecar[]): Promise<void> {
  const services = Array.from({ length: idleServices }, (_, i) => `idle-${i}`);
  for (const name of services) for (let i = 0; i < 4; i += 1) await register(name, i, 1);
  process.stdout.write(`${idle} s without a change, ${idleServices} services of 4 instances\n`);
  process.stdout.write(row('', 'CPU s a minute', 'RSS MiB'));
  for (const { name, command } of sidecars) {
    const pid = run(command(services));
    await sleep(5000);
    const before = cpuMs(pid);
    await sleep(idle * 1000);
    const perMinute = ((cpuMs(pid) - before) / 1000) * (60 / idle);
    process.stdout.write(row(name, perMinute.toFixed(3), residentMiB(pid).toFixed(0)));
    await ended.pop()?.();
  }
}

function row(name: string, ...cells: string[]): string {
  return `${name.padEnd(12)}${cells.map((cell) => cell.padStart(24)).join('')}\n`;
}

function loop(name: string): Pick<Sidecar, 'name' | 'command'> {
  const path = join(checkout, `test/bench/${name}-loop.mjs`);
  const targets = [consul.address, nginx.admin, authorization];
  return { name, command: (services) => [process.execPath, path, ...targets, ...services] };
}

const builds = ['dist/main.js', ...options.agents.split(',').filter((path) => path !== '')];
const sidecars: Sidecar[] = [
  loop('bare'),
  loop('packages'),
  ...builds.map((path, i) => ({
    name: i === 0 ? 'agent' : `agent-${i}`,
    command: (services: string[]) => agentCommand(resolve(checkout, path), services),
  })),
].map((sidecar) => ({ ...sidecar, pid: 0, perChange: [], p99: [] }));
try {
  await measureChanges(sidecars);
  await Promise.all(ended.splice(0).map((end) => end()));
  await measureIdle(sidecars);
  const largeTable = join(checkout, 'test/bench/large-table.ts');
  execFileSync(process.execPath, ['--import', 'tsx', largeTable, options.idle], {
    stdio: 'inherit',
  });
} finally {
  for (const end of ended) await end();
  await nginx.stop();
  await consul.stop();
  await backend.stop();
  client.destroy();
  remove();
}
