// `npm run bench:scale`: what 5,000 services of 20 instances cost over HTTPS, by a
// real Consul with its default limits and a real nginx: connections, the first full
// sync, memory, an idle minute, one change and its floor, 1,000 changes a second, a
// check of a node under 1,000 services, and a Consul that is killed.
//
//   npm run bench:scale -- [--services 5000] [--instances 20] [--parts sync,idle,change,node,rate,restart]
//     [--changes 200] [--seconds 60] [--rounds 5] [--agent other/dist/main.js] [--json FILE]
import { once } from 'node:events';
import { readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Backend } from '../stack/backend.ts';
import { certify } from '../stack/certificate.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { start, stop, until } from '../stack/process.ts';
import { authorization, tokenFile } from '../stack/token.ts';
import { perPath } from './routed.ts';
import { percentile } from './statistics.ts';
import { WideConsul } from './wide-consul.ts';

const { values: options } = parseArgs({
  options: {
    services: { type: 'string', default: '5000' },
    instances: { type: 'string', default: '20' },
    parts: { type: 'string', default: 'sync,idle,change,node,rate,restart' },
    changes: { type: 'string', default: '200' },
    seconds: { type: 'string', default: '60' },
    rounds: { type: 'string', default: '5' },
    agent: { type: 'string', default: 'dist/main.js' },
    json: { type: 'string' },
  },
});
const [services, instances, changes, seconds, rounds] = [
  ...[options.services, options.instances, options.changes],
  ...[options.seconds, options.rounds],
].map(Number) as [number, number, number, number, number];
const changesPerSecond = 1000;
/** In one transaction of Consul: what it writes to its log costs more than what the agent does of it. */
const changesAtOnce = 20;

interface Figure {
  what: string;
  unit: string;
  median: number;
  low: number;
  high: number;
  p99: number;
  count: number;
}

const figures: Figure[] = [];

function note(what: string, unit: string, values: number[]): void {
  const [median, low, high, p99] = [0.5, 0, 1, 0.99].map((share) => percentile(values, share));
  const figure = { what, unit, median, low, high, p99, count: values.length } as Figure;
  figures.push(figure);
  const several =
    values.length > 1
      ? ` (${show(low)}–${show(high)}; p99 ${show(p99)}; n = ${values.length})`
      : '';
  process.stdout.write(`${what.padEnd(64)} ${show(median)} ${unit}${several}\n`);
}

function show(value = Number.NaN): string {
  return value.toFixed(Math.abs(value) >= 100 ? 0 : 2);
}

const { folder, remove } = temporaryFolder();
const backends = [await Backend.start('even'), await Backend.start('odd')] as const;
const certificate = certify(folder);
const began = performance.now();
const wide = await WideConsul.start(join(folder, 'consul'), certificate, {
  ...{ services, instances, port: backends[0].port },
});
const { consul } = wide;
const filled = (performance.now() - began) / 1000;
const nginx = await Nginx.start(join(folder, 'nginx'), {
  workers: 1,
  dict: '256m',
  changes: [
    [
      'lua_shared_dict reloadless ',
      'log_format admin "$request_method $request_length";\nlua_shared_dict reloadless ',
    ],
    ['access_log off;', 'access_log logs/admin.log admin;'],
  ],
  http: perPath,
});
const client = new Agent({ keepAlive: true });
const log = join(folder, 'agent.log');
const names = Array.from({ length: services }, (_, i) => `s${i}`);
const config = join(folder, 'reloadless.yml');
writeFileSync(
  config,
  JSON.stringify({
    consul: { address: wide.secure, tls: { ca_file: certificate.cert } },
    openresty: [{ address: nginx.admin, token_file: tokenFile }],
    snapshot: nginx.snapshot,
    upstreams: Object.fromEntries(names.map((name) => [name, {}])),
  }),
);

async function send(
  url: string,
  { method = 'GET', body = '', headers = {} } = {},
): Promise<{ text: string; etag: string }> {
  const sent = request(url, { method, agent: client, headers });
  sent.end(body);
  const [response] = await once(sent, 'response');
  let text = '';
  for await (const chunk of response) text += chunk;
  return { text: text.trim(), etag: String(response.headers.etag) };
}

/** Of the table, without its content: how many writes there have been is in it. */
async function version(): Promise<number> {
  const headers = { authorization };
  const { etag } = await send(`${nginx.admin}/v1/upstreams/s0`, { headers });
  return Number(etag.replaceAll('"', '').split('.')[1] ?? 0);
}

/** The peers of all upstreams. */
async function table(): Promise<Record<string, Record<string, object>>> {
  const headers = { authorization };
  const { text } = await send(`${nginx.admin}/v1/upstreams`, { headers });
  const { upstreams } = JSON.parse(text) as {
    upstreams: Record<string, { peers: Record<string, object> }>;
  };
  return Object.fromEntries(Object.entries(upstreams).map(([name, { peers }]) => [name, peers]));
}

/**
 * Waits until the table is right. The whole of it is read only when it has been
 * quiet for some time, for the sake of the worker.
 *
 * @returns when it was written last, as `performance.now` counts
 */
async function settled(
  isRight: (of: Awaited<ReturnType<typeof table>>) => boolean,
): Promise<number> {
  let last = await version();
  let at = performance.now();
  for (const end = at + 120_000; performance.now() < end; await sleep(5)) {
    const now = await version();
    if (now !== last) at = performance.now();
    last = now;
    if (performance.now() - at < 1500) continue;
    if (isRight(await table())) return at;
    await sleep(500);
  }
  throw new Error('the table is not what it should be');
}

const isWhole = (of: Awaited<ReturnType<typeof table>>) =>
  names.every((name) => Object.keys(of[name] ?? {}).length === instances);

const agent = start(process.execPath, [resolve(checkout, options.agent), 'run', '-c', config], log);
const spawned = performance.now();
const pid = agent.pid ?? 0;

/** ns on a processor, of all threads, as ms. */
function cpuMs(of: number): number {
  return readdirSync(`/proc/${of}/task`)
    .map((task) => readFileSync(`/proc/${of}/task/${task}/schedstat`, 'utf8').split(' ')[0])
    .reduce((sum, ns) => sum + Number(ns) / 1e6, 0);
}

function memoryMiB(what: 'VmRSS' | 'VmHWM', of = pid): number {
  const status = readFileSync(`/proc/${of}/status`, 'utf8');
  return Number(new RegExp(`${what}:\\s+(\\d+)`).exec(status)?.[1]) / 1024;
}

/** Connections to Consul that the agent has open. */
function connections(): number {
  const port = Number(new URL(wide.secure).port).toString(16).toUpperCase().padStart(4, '0');
  const lines = readFileSync('/proc/net/tcp', 'utf8').split('\n');
  const toConsul = lines
    .map((line) => line.trim().split(/\s+/))
    .filter((part) => part[2]?.endsWith(`:${port}`));
  const inodes = new Set(toConsul.map((part) => `socket:[${part[9]}]`));
  const files = readdirSync(`/proc/${pid}/fd`).map((file) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${file}`);
    } catch {
      // Closed meanwhile.
      return '';
    }
  });
  return files.filter((file) => inodes.has(file)).length;
}

/** What the log says of level error and above since a place in it. */
function errors(since: number): string[] {
  const lines = readFileSync(log).subarray(since).toString().split('\n');
  return lines.filter((line) => line.startsWith('{') && JSON.parse(line).level >= 50);
}

const logSize = () => statSync(log).size;

/** The lengths of the writes to the admin API since a place in its log. */
function writes(since: number): number[] {
  const lines = readFileSync(adminLog).subarray(since).toString().split('\n');
  return lines
    .filter((line) => line.startsWith('PATCH '))
    .map((line) => Number(line.split(' ')[1]));
}

const adminLog = join(folder, 'nginx/logs/admin.log');
const adminLogSize = () => statSync(adminLog).size;

async function sync(): Promise<void> {
  const at = await settled(isWhole);
  note('first full sync, from the start of the process', 's', [(at - spawned) / 1000]);
  note('  parts of it that were written', '', [(await version()) - 0]);
  note('  peak memory of the agent', 'MiB', [memoryMiB('VmHWM')]);
}

/** A watch begins with short waits, in ms. */
const settling = 180_000;

async function idle(): Promise<void> {
  await sleep(Math.max(0, spawned + settling - performance.now()));
  const [before, consulBefore] = [cpuMs(pid), cpuMs(consul.pid ?? 0)];
  await sleep(seconds * 1000);
  const share = (ms: number) => (100 * ms) / (seconds * 1000);
  note('idle: CPU of the agent', '% of a core', [share(cpuMs(pid) - before)]);
  note('idle: CPU of Consul', '% of a core', [share(cpuMs(consul.pid ?? 0) - consulBefore)]);
  note('connections to Consul', '', [connections()]);
  note('memory of the agent', 'MiB', [memoryMiB('VmRSS')]);
  note('memory of Consul', 'MiB', [memoryMiB('VmRSS', consul.pid)]);
}

/** Milliseconds from the write until the start of the first request that the wanted backend answers. */
async function routed(service: number, i: number): Promise<number> {
  const { name, port } = backends[i % 2] as Backend;
  const from = performance.now();
  let failure: unknown;
  const written = wide.write([wide.instance(service, 0, port)]).catch((error) => {
    failure = error;
  });
  for (;;) {
    if (failure !== undefined) throw failure;
    const sent = performance.now();
    if ((await send(`${nginx.url}/s${service}`)).text === name) {
      await written;
      return sent - from;
    }
  }
}

/** Milliseconds from the write until a blocking query has returned and a POST to nginx is answered. */
async function floor(service: number, i: number): Promise<number> {
  const query = `${consul.address}/v1/health/service/s${service}?stale`;
  const index = await consul
    .http(`health/service/s${service}`)
    .then((answer) => answer.headers['x-consul-index']);
  const change = send(`${query}&index=${index}&wait=30s`);
  // The query must be waiting when the write comes.
  await sleep(5);
  const from = performance.now();
  const written = wide.write([wide.instance(service, 0, backends[i % 2]?.port)]);
  const posted = change.then(async ({ text }) => {
    JSON.parse(text);
    await send(`${nginx.url}/post`, { method: 'POST', body: '{}' });
    return performance.now() - from;
  });
  const [took] = await Promise.all([posted, written]);
  return took;
}

/** One change at a time, of one service after the other; the floor is that of a service that nobody else watches. */
async function change(): Promise<void> {
  const extra = services;
  await wide.write(Array.from({ length: instances }, (_, i) => wide.instance(extra, i)));
  const floors: number[] = [];
  const found: number[] = [];
  const since = adminLogSize();
  for (let i = 1; i <= changes; i += 1) {
    floors.push(await floor(extra, i));
    // Each service has changed an even number of times before.
    found.push(await routed((i * 7) % services, 1));
    await sleep(50);
    await routed((i * 7) % services, 0);
    await sleep(50);
  }
  note('one change: floor, a blocking query that returns and one POST', 'ms', floors);
  note('one change: written to Consul to the first request routed anew', 'ms', found);
  const of = (share: number) => percentile(found, share) / percentile(floors, share);
  note('  of the floor, median', '×', [of(0.5)]);
  note('  of the floor, p99', '×', [of(0.99)]);
  note('  bytes of a request to the admin API', 'B', writes(since));
}

/** Changes of all services in turn, at a steady rate. */
async function rate(): Promise<void> {
  const [cpu, consulCpu] = [cpuMs(pid), cpuMs(consul.pid ?? 0)];
  const since = adminLogSize();
  const from = performance.now();
  const written: Promise<void>[] = [];
  let wanted = 0;
  for (let i = 0; i < (seconds * changesPerSecond) / changesAtOnce; i += 1) {
    const due = from + (i * 1000 * changesAtOnce) / changesPerSecond;
    if (due > performance.now()) await sleep(due - performance.now());
    const some = Array.from({ length: changesAtOnce }, (_, k) => {
      const service = (i * changesAtOnce + k) % services;
      wanted = 20_000 + (Math.floor((i * changesAtOnce + k) / services) % 10_000);
      return wide.instance(service, 1, wanted);
    });
    written.push(wide.write(some));
  }
  await Promise.all(written);
  const ended = performance.now();
  const ms = ended - from;
  note('changes a second that Consul took', '/s', [(seconds * changesPerSecond * 1000) / ms]);
  const cpuOf = [cpuMs(pid) - cpu, cpuMs(consul.pid ?? 0) - consulCpu];
  note('  CPU of the agent', '% of a core', [(100 * (cpuOf[0] ?? 0)) / ms]);
  note('  CPU of Consul', '% of a core', [(100 * (cpuOf[1] ?? 0)) / ms]);
  const last = Math.min(services, seconds * changesPerSecond);
  const at = await settled((of) =>
    names
      .slice(services - Math.min(last, services))
      .every((name, i) => `10.1.${i >> 8}.${i & 255}:${wanted}` in (of[name] ?? {})),
  );
  note('  lag at the end: last write answered until all is right', 's', [
    Math.max(0, at - ended) / 1000,
  ]);
  note('  writes to nginx', '', [writes(since).length]);
  note('  memory of the agent after it', 'MiB', [memoryMiB('VmRSS')]);
}

/** A check of one node, under each service of its group. */
async function node(): Promise<void> {
  const times: number[] = [];
  const batches: number[] = [];
  const cpu: number[] = [];
  const since = logSize();
  const hit = Math.min(services, 1000);
  for (let round = 0; round < 2 * rounds; round += 1) {
    const isDown = round % 2 === 0;
    const [before, cpuBefore] = [await version(), cpuMs(pid)];
    const from = performance.now();
    await wide.write([wide.nodeCheck(wide.node(0, 2), isDown ? 'critical' : 'passing')]);
    const at = await settled((of) => {
      const counts = names.slice(0, hit).map((name) => Object.keys(of[name] ?? {}).length);
      return counts.every((count) => count === instances - (isDown ? 1 : 0));
    });
    times.push((at - from) / 1000);
    batches.push((await version()) - before);
    cpu.push(cpuMs(pid) - cpuBefore);
  }
  note(`a check of a node under ${hit} services: until all is right`, 's', times);
  note('  writes to nginx', '', batches);
  note('  CPU of the agent', 'ms', cpu);
  note('  errors in the log', '', [errors(since).length]);
}

/** Queries for health that Consul has answered, while it lives. */
async function answered(): Promise<number> {
  const { Samples } = (await consul.http('agent/metrics').json()) as {
    Samples: { Name: string; Count: number }[];
  };
  return Samples.find(({ Name }) => Name === 'consul.http.GET.v1.health.service._')?.Count ?? 0;
}

/** Consul is killed, and comes back after some time. */
async function restart(): Promise<void> {
  const since = logSize();
  const before = await version();
  await consul.stop('SIGKILL');
  await sleep(5_000);
  const from = performance.now();
  await consul.up();
  const up = performance.now();
  const cpu = cpuMs(pid);
  await wide.write([wide.instance(1, 1, 30_000), wide.instance(services - 1, 1, 30_000)]);
  await until(
    'changes are seen',
    async () => {
      const ofs = await Promise.all(
        [1, services - 1].map((i) =>
          send(`${nginx.admin}/v1/upstreams/s${i}`, { headers: { authorization } }),
        ),
      );
      return ofs.every(({ text }) => text.includes(':30000'));
    },
    120,
  );
  note('Consul killed for 5 s: it leads again after', 's', [(up - from) / 1000]);
  note('  two changes are live after that', 's', [(performance.now() - up) / 1000]);
  await sleep(30_000 - (performance.now() - up));
  note('  CPU of the agent in 30 s', 'ms', [cpuMs(pid) - cpu]);
  note('  queries that Consul answered in 10 s', '', [await answered()]);
  note('  connections', '', [connections()]);
  note('  writes to nginx', '', [(await version()) - before]);
  note('  errors in the log', '', [errors(since).length]);
}

const parts: Record<string, () => Promise<void>> = { sync, idle, change, node, rate, restart };

try {
  process.stdout.write(
    `${services} services of ${instances} instances, written to Consul in ${show(filled)} s\n`,
  );
  const wanted = options.parts.split(',');
  if (!wanted.includes('sync')) await settled(isWhole);
  for (const [name, part] of Object.entries(parts)) if (wanted.includes(name)) await part();
  if (wanted.includes('sync')) {
    const times: number[] = [];
    for (let i = 0; i < 3; i += 1) times.push(await wide.answeringTime());
    note("Consul's own time to answer for all services once", 's', times);
  }
  if (options.json !== undefined)
    writeFileSync(options.json, `${JSON.stringify(figures, null, 2)}\n`);
} finally {
  await stop(agent);
  await nginx.stop();
  await wide.stop();
  for (const backend of backends) await backend.stop();
  client.destroy();
  remove();
}
