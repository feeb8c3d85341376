// `npm run bench:fleet`: what the watches of many sidecars cost Consul: 100
// sidecars of 20 services each on one server, over HTTP/1.1, over HTTPS (which
// is HTTP/2), and by way of a client agent, without its cache and with it. Then
// what that makes of 10,000 sidecars. docs/fleet.md says what follows.
//
//   npm run bench:fleet -- [--sidecars 100] [--services 20] [--seconds 20] [--changes 40]
//     [--cases http,https,client,cached] [--json FILE]
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { certify } from '../stack/certificate.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { createAsker } from './loop.mjs';
import { type Figure, figure, printTable, writeJson } from './report.ts';
import { cpuMs, residentMiB } from './usage.ts';

const { values: options } = parseArgs({
  options: {
    sidecars: { type: 'string', default: '100' },
    services: { type: 'string', default: '20' },
    seconds: { type: 'string', default: '20' },
    changes: { type: 'string', default: '40' },
    cases: { type: 'string', default: 'http,https,client,cached' },
    json: { type: 'string' },
  },
});
const [sidecars, services, seconds, changes] = [
  options.sidecars,
  options.services,
  options.seconds,
  options.changes,
].map(Number) as [number, number, number, number];
const watches = sidecars * services;
/** Of each service. */
const instances = 4;
/** In the catalogue. */
const catalogue = 10 * services;
/** Of a query here, in ms; shorter than an agent's, to see more renewals. */
const wait = 5000;
/** Of an agent's query, in s, as it is by default. */
const agentWait = 25;
/** So many sidecars are extrapolated to. */
const many = 10_000;
/** The one service that all sidecars follow. */
const popular = 'service-0';
const unwatched = 'unwatched';

/** What the watches cost one process of Consul. */
interface Cost {
  /** Memory in MiB, and CPU in percent of a core, before there were any. */
  resident: number;
  idle: number;
  /** Of memory, for each watch. */
  kib: number;
  /** CPU ms for each watch's first answer, its share of the connection included. */
  start: number;
  /** CPU ms when a query ends without a change and the next begins. */
  renewal: number;
  /** CPU ms for each watcher that hears of a change. */
  wake: number;
}

interface Result {
  way: string;
  /** From the sidecars. */
  connections: number;
  costs: Record<string, Cost>;
  /** Bytes of one answer. */
  answer: number;
  /** ms from the write until the last of the watchers has the answer. */
  heard: Figure;
}

const { folder, remove } = temporaryFolder();
const { cert, key } = certify(folder);
const ended: (() => Promise<void>)[] = [];

/** The watches of all sidecars. */
function follow(address: string, mode: string) {
  const askers = Array.from({ length: sidecars }, () => createAsker(address, readFileSync(cert)));
  const counts = { first: 0, renewals: 0, wakes: 0, answer: 0 };
  let isClosed = false;

  async function watch(ask: (typeof askers)[number]['ask'], service: string): Promise<void> {
    let index = '0';
    while (!isClosed) {
      const ms = Math.round(wait * (0.9 + 0.2 * Math.random()));
      const query = `${mode}&index=${index}&wait=${ms}ms`;
      const { headers, text } = await ask(`/v1/health/service/${service}?${query}`);
      const now = String(headers['x-consul-index']);
      if (index === '0') counts.first += 1;
      else if (now === index) counts.renewals += 1;
      else counts.wakes += 1;
      index = now;
      counts.answer = text.length;
    }
  }

  for (const [i, { ask }] of askers.entries()) {
    for (let k = 0; k < services; k += 1) {
      const other = 1 + ((i * (services - 1) + k) % (catalogue - 1));
      // What fails when all is ended is of no matter.
      watch(ask, k === 0 ? popular : `service-${other}`).catch((error) => {
        if (!isClosed) throw error;
      });
    }
  }
  return {
    counts,
    connections: () => askers.reduce((sum, asker) => sum + asker.connections(), 0),
    close() {
      isClosed = true;
      for (const asker of askers) asker.close();
    },
  };
}

/** @returns ms of CPU of each process */
function cpuOf(pids: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(pids).map(([name, pid]) => [name, cpuMs(pid)]));
}

/** @returns from `before` to now */
function spent(pids: Record<string, number>, before: Record<string, number>) {
  const now = cpuOf(pids);
  return (name: string) => (now[name] ?? 0) - (before[name] ?? 0);
}

async function measure(
  way: string,
  { server, at, address, mode }: { server: Consul; at: Consul; address: string; mode: string },
): Promise<Result> {
  const change = (name: string, port: number) =>
    server.register({ name, id: `${name}-0`, address: '10.0.0.1', port });
  const pids: Record<string, number> = { server: server.pid ?? 0 };
  if (at !== server) pids.client = at.pid ?? 0;
  const names = Object.keys(pids);
  await sleep(3000);
  let before = cpuOf(pids);
  await sleep(5000);
  const quiet = spent(pids, before);
  const perMs = (name: string) => quiet(name) / 5000;
  const resident = names.map((name) => residentMiB(pids[name] ?? 0));

  before = cpuOf(pids);
  let began = performance.now();
  const fleet = follow(address, mode);
  const { counts } = fleet;
  await until('each watch has its first answer', () => counts.first === watches, 60);
  const first = spent(pids, before);
  const firstMs = performance.now() - began;

  await sleep(1000);
  before = cpuOf(pids);
  began = performance.now();
  counts.renewals = 0;
  await sleep(seconds * 1000);
  const held = spent(pids, before);
  const [renewals, heldMs] = [counts.renewals, performance.now() - began];
  const grown = names.map((name, i) => residentMiB(pids[name] ?? 0) - (resident[i] ?? 0));
  const renewal = (name: string) => (held(name) - perMs(name) * heldMs) / renewals;

  const times: number[] = [];
  /** @returns CPU ms without that of the renewals meanwhile, and how many were woken */
  async function changing(service: string, watchers: number) {
    const from = cpuOf(pids);
    const last = { ...counts };
    for (let i = 1; i <= changes; i += 1) {
      const woken = counts.wakes;
      const sent = performance.now();
      await change(service, 1000 + i);
      while (counts.wakes < woken + watchers) await sleep(1);
      if (watchers > 0) times.push(performance.now() - sent);
      await sleep(100);
    }
    const used = spent(pids, from);
    const more = counts.renewals - last.renewals;
    return (name: string) => used(name) - more * renewal(name);
  }
  const alone = await changing(unwatched, 0);
  const woken = await changing(popular, sidecars);
  const costs = names.map((name, i): [string, Cost] => [
    name,
    {
      resident: resident[i] ?? 0,
      idle: 100 * perMs(name),
      kib: ((grown[i] ?? 0) * 1024) / watches,
      start: (first(name) - perMs(name) * firstMs) / watches,
      renewal: renewal(name),
      wake: (woken(name) - alone(name)) / (changes * sidecars),
    },
  ]);
  const { answer } = counts;
  const connections = fleet.connections();
  fleet.close();
  const heard = figure(times);
  return { way, connections, costs: Object.fromEntries(costs), answer, heard };
}

/** A server with its services, and where it is reached. */
async function open(way: string): Promise<Parameters<typeof measure>[1]> {
  const [https, lan] = [await freePort(), await freePort()];
  // Each sidecar is a host of its own, which has a limit for itself. No more than
  // Consul starts with: docs/discoveries/consul-limit-of-files.md.
  const limits = { http_max_conns_per_client: 2 * watches };
  const server = await Consul.start(join(folder, `${way}-server`), {
    ...{ limits, cert_file: cert, key_file: key, ports: { https, serf_lan: lan } },
  });
  ended.unshift(() => server.stop());
  for (let i = 0; i < catalogue * instances; i += 1) {
    const name = `service-${i % catalogue}`;
    const id = `${name}-${Math.floor(i / catalogue)}`;
    await server.register({ name, id, address: `10.0.0.${1 + (i % 200)}`, port: 80 });
  }
  const at = { server, at: server, mode: 'stale' };
  if (way === 'http') return { ...at, address: server.address };
  if (way === 'https') return { ...at, address: `https://127.0.0.1:${https}` };
  const client = await Consul.start(join(folder, `${way}-client`), {
    ...{ server: false, bootstrap_expect: undefined, node_name: 'client', limits },
    retry_join: [`127.0.0.1:${lan}`],
  });
  ended.unshift(() => client.stop());
  const mode = way === 'cached' ? 'cached' : 'stale';
  return { server, at: client, address: client.address, mode };
}

function print(results: Result[]): void {
  process.stdout.write(
    `${sidecars} sidecars of ${services} services; CPU in ms; heard: ms until the last of ${sidecars}\n`,
  );
  const digits = (value: number) => value.toFixed(3);
  printTable([
    [
      ...['', 'MiB before', 'idle %', 'connections', 'KiB a watch'],
      ...['CPU a start', 'a renewal', 'a wake', 'heard', 'most'],
    ],
    ...results.flatMap(({ way, connections, costs, heard }) =>
      Object.entries(costs).map(([name, { resident, idle, kib, start, renewal, wake }]) => [
        ...[`${way}: ${name}`, resident.toFixed(0), idle.toFixed(2)],
        ...[`${connections}`, kib.toFixed(1)],
        ...[start, renewal, wake].map(digits),
        ...[heard.median, heard.most].map((ms) => ms.toFixed(1)),
      ]),
    ),
  ]);
  process.stdout.write(`\n${many} sidecars, all on one server; wait of ${agentWait} s\n`);
  printTable([
    ['', 'GiB', 'cores, no change', 'CPU s a change that all hear', 'MB a change'],
    ...results.map(({ way, costs, answer }) => {
      const { gib, cores, seconds: s, mb } = extrapolate(costs, answer);
      return [way, gib.toFixed(2), cores.toFixed(2), s.toFixed(2), mb.toFixed(1)];
    }),
  ]);
}

/** What the server would bear of so many sidecars. */
function extrapolate({ server }: Record<string, Cost>, answer: number) {
  const { kib = 0, renewal = 0, wake = 0 } = server ?? {};
  const all = many * services;
  return {
    gib: (all * kib) / 2 ** 20,
    cores: (all / agentWait) * (renewal / 1000),
    seconds: (many * wake) / 1000,
    mb: (many * answer) / 1e6,
  };
}

try {
  const results: Result[] = [];
  for (const way of options.cases.split(',')) {
    results.push(await measure(way, await open(way)));
    for (const end of ended.splice(0)) await end();
  }
  print(results);
  const extrapolated = results.map(({ way, costs, answer }) => ({
    ...{ way, sidecars: many, ...extrapolate(costs, answer) },
  }));
  writeJson(options.json, 'fleet', { sidecars, services, wait, changes, results, extrapolated });
} finally {
  for (const end of ended) await end();
  remove();
}
