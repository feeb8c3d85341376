// `npm run bench:peers`: Reloadless beside nginx's own `resolve` over Consul's DNS
// (nginx 1.27.3 and newer), with `valid=1s` and without: an instance swapped for
// another, a rolling deploy, and steady changes under load. Where this machine's
// nginx is older, it runs in a Debian that it makes (as root).
//
//   npm run bench:peers -- [--parts swap,deploy,churn] [--swaps 15] [--deploys 4]
//     [--churns 2] [--seconds 10] [--json FILE]
import { once } from 'node:events';
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Agent } from '../stack/agent.ts';
import { Consul } from '../stack/consul.ts';
import { makeRoot, runInside } from '../stack/debian.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout, parts as fetched, findNginx } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { type Answered, startLoad } from './load.ts';
import { type Figure, figure, printTable, writeJson } from './report.ts';
import { send } from './routed.ts';
import { spread } from './statistics.ts';
import { cpuMs } from './usage.ts';

const { values: options } = parseArgs({
  options: {
    parts: { type: 'string', default: 'swap,deploy,churn' },
    swaps: { type: 'string', default: '15' },
    deploys: { type: 'string', default: '4' },
    churns: { type: 'string', default: '2' },
    seconds: { type: 'string', default: '10' },
    json: { type: 'string' },
  },
});
const seconds = Number(options.seconds);

/** Who is measured: an nginx that serves one service. */
interface Peer {
  name: string;
  service: string;
  nginx: Nginx;
  agent?: Agent;
}

/** A backend that is registered. */
interface Instance {
  name: string;
  nginx: Nginx;
}

const { folder, remove } = temporaryFolder();
const ended: (() => Promise<void>)[] = [];
let count = 0;

function connections(upstream: string): string {
  return `${upstream}
    server {
        listen PORT;
        location / {
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }`;
}

async function startPeers(consul: Consul, dns: number): Promise<Peer[]> {
  const ofNginx = async (name: string, service: string, valid: string): Promise<Peer> => {
    const upstream = `
    resolver 127.0.0.1:${dns} ${valid} ipv6=off;
    upstream web {
        zone web 256k;
        server service.consul service=${service} resolve;
        keepalive 64;
    }`;
    const text = connections(upstream);
    const http = ({ port }: { port: number }) => text.replace('PORT', `127.0.0.1:${port}`);
    const nginx = await Nginx.start(join(folder, service), { plain: true, http });
    return { name, service, nginx };
  };
  const text = connections(`
    upstream web {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("ours") }
        keepalive 64;
    }`);
  const nginx = await Nginx.start(join(folder, 'ours'), {
    http: ({ port }) => text.replace('PORT', `127.0.0.1:${port}`),
  });
  const agent = Agent.start(join(folder, 'agent.log'), [
    ...['--consul', consul.address, '--openresty', nginx.admin],
    ...['--snapshot', nginx.snapshot, '--service', 'ours', '--log-level', 'info'],
  ]);
  ended.unshift(() => agent.stop());
  const all = [
    { name: 'Reloadless', service: 'ours', nginx, agent },
    await ofNginx('resolve valid=1s', 'valid', 'valid=1s'),
    await ofNginx('resolve, TTL 0', 'ttl', ''),
  ];
  for (const peer of all) ended.unshift(() => peer.nginx.stop());
  return all;
}

/** A backend that answers its name, after 10 ms as an application does. */
async function startInstance(): Promise<Instance> {
  count += 1;
  const name = `instance-${count}`;
  const nginx = await Nginx.start(join(folder, name), {
    ...{ plain: true, workers: 1 },
    http: ({ port }) => `
    keepalive_requests 1000000000;
    server {
        listen 127.0.0.1:${port};
        location / { content_by_lua_block { ngx.sleep(0.01) ngx.print("${name}") } }
    }`,
  });
  ended.unshift(() => nginx.stop('SIGKILL'));
  return { name, nginx };
}

function startInstances(n: number): Promise<Instance[]> {
  return Promise.all(Array.from({ length: n }, startInstance));
}

function register(
  consul: Consul,
  service: string,
  { name, nginx }: Instance,
  more: object = {},
): Promise<void> {
  return consul.register({
    ...{ name: service, id: name, address: '127.0.0.1', port: nginx.port, ...more },
  });
}

async function serving({ name, nginx }: Peer, instances: Instance[]): Promise<void> {
  const seen = new Set<string>();
  await until(`${name} uses all`, async () => {
    seen.add(await send(nginx.url));
    return instances.every((one) => seen.has(one.name));
  });
}

/** From Consul's answer to a deregistration until the old instance is asked no more. */
async function swaps(consul: Consul, peers: Peer[]): Promise<Map<Peer, number[]>> {
  const rest = 3500;
  const found = await Promise.all(
    peers.map(async (peer): Promise<[Peer, number[]]> => {
      const { service, nginx } = peer;
      let [one, other] = (await startInstances(2)) as [Instance, Instance];
      await register(consul, service, one);
      await serving(peer, [one]);
      const stop = startLoad(nginx.url, 8, 16);
      const marks: { old: string; at: number }[] = [];
      for (let i = 0; i < Number(options.swaps); i += 1) {
        await register(consul, service, other);
        await consul.deregister(one.name);
        marks.push({ old: one.name, at: performance.now() });
        [one, other] = [other, one];
        // At no certain point of anybody's second.
        await sleep(rest + 1000 * Math.random());
      }
      const all = await stop();
      await consul.deregister(one.name);
      all.sort((a, b) => a.sent - b.sent);
      // Until the first request of those after the last that the old one got.
      const took = ({ old, at }: (typeof marks)[number]) => {
        const after = all.filter(({ sent }) => sent >= at && sent < at + rest);
        const last = after.findLastIndex(({ body }) => body === old);
        return (after[last + 1]?.sent ?? Number.NaN) - at;
      };
      return [peer, marks.map(took)];
    }),
  );
  return new Map(found);
}

interface Deploy {
  failed: number;
  /** Answered by an instance after Consul had said that it is gone. */
  wrong: number;
  requests: number;
  p99: number;
}

/** Eight instances replaced, a step each 200 ms; each old one is killed 100 ms after it has left Consul. */
async function deploy(consul: Consul, peer: Peer): Promise<Deploy> {
  const { service, nginx } = peer;
  const [old, fresh] = [await startInstances(8), await startInstances(8)];
  for (const one of old) await register(consul, service, one);
  await serving(peer, old);
  const gone = new Map<string, number>();
  const stop = startLoad(nginx.url, 32, 20);
  await sleep(1000);
  for (const [i, one] of old.entries()) {
    const began = performance.now();
    await register(consul, service, fresh[i] as Instance);
    await consul.deregister(one.name);
    gone.set(one.name, performance.now());
    await sleep(100);
    await one.nginx.kill();
    await sleep(Math.max(0, began + 200 - performance.now()));
  }
  await sleep(3000);
  const all = await stop();
  for (const { name } of fresh) await consul.deregister(name);
  await Promise.all(fresh.map((one) => one.nginx.stop('SIGKILL')));
  const isWrong = ({ sent, body }: Answered) => sent > (gone.get(body ?? '') ?? sent);
  return {
    failed: all.filter(({ body }) => body === undefined).length,
    wrong: all.filter(isWrong).length,
    requests: all.length,
    p99: figure(all.map(({ ms }) => ms)).p99,
  };
}

interface Churn {
  failed: number;
  p99Before: number;
  p99: number;
  worst: number;
  /** CPU in s for 30 s, of nginx, of the sidecar and of Consul. */
  nginx: number;
  sidecar: number;
  consul: number;
}

/** Twenty changes a second: of meta, a new instance, a weight, and the new one gone, in turn. */
async function churn(consul: Consul, peer: Peer): Promise<Churn> {
  const { service, nginx, agent } = peer;
  const instances = await startInstances(5);
  const [extra, ...base] = instances as [Instance, Instance, Instance];
  for (const one of base) await register(consul, service, one);
  await serving(peer, base);
  const quiet = startLoad(nginx.url, 32, 20);
  await sleep(seconds * 1000);
  const before = await quiet();
  const used = () => [
    [nginx.pid ?? 0, ...nginx.workers()].reduce((sum, pid) => sum + cpuMs(pid), 0),
    agent?.pid === undefined ? 0 : cpuMs(agent.pid),
    cpuMs(consul.pid ?? 0),
  ];
  const from = used();
  const stop = startLoad(nginx.url, 32, 20);
  const began = performance.now();
  for (let i = 0; i < 20 * seconds; i += 1) {
    const due = began + i * 50;
    if (due > performance.now()) await sleep(due - performance.now());
    const [first, second] = base as [Instance, Instance];
    const step = i % 4;
    if (step === 0) await register(consul, service, first, { meta: { build: `${i}` } });
    else if (step === 1) await register(consul, service, extra);
    else if (step === 2) {
      await register(consul, service, second, { weights: { Passing: 1 + (i % 8), Warning: 1 } });
    } else await consul.deregister(extra.name);
  }
  const all = await stop();
  const per30 = used().map((ms, i) => ((ms - (from[i] ?? 0)) / 1000) * (30 / seconds));
  for (const { name } of base) await consul.deregister(name);
  await Promise.all(instances.map((one) => one.nginx.stop('SIGKILL')));
  const times = figure(all.map(({ ms }) => ms));
  const [ofNginx = 0, sidecar = 0, ofConsul = 0] = per30;
  return {
    failed: [...before, ...all].filter(({ body }) => body === undefined).length,
    p99Before: figure(before.map(({ ms }) => ms)).p99,
    ...{ p99: times.p99, worst: times.most, nginx: ofNginx, sidecar, consul: ofConsul },
  };
}

/** Rounds in which each takes its turn, another one first each time. */
async function inTurns<T>(
  peers: Peer[],
  rounds: number,
  one: (peer: Peer) => Promise<T>,
): Promise<Map<Peer, T[]>> {
  const found = new Map<Peer, T[]>(peers.map((peer) => [peer, []]));
  for (let round = 0; round < rounds; round += 1) {
    for (let k = 0; k < peers.length; k += 1) {
      const peer = peers[(round + k) % peers.length] as Peer;
      found.get(peer)?.push(await one(peer));
    }
  }
  return found;
}

function printSwaps(all: Map<Peer, number[]>): Record<string, Figure> {
  const figures = [...all].map(([{ name }, times]): [string, Figure] => [name, figure(times)]);
  const base = figures[0]?.[1].median ?? Number.NaN;
  process.stdout.write(`${options.swaps} swaps: ms until only the new instance is asked\n`);
  printTable([
    ['', 'median', 'least', 'most', 'of Reloadless'],
    ...figures.map(([name, { median, least, most }]) => [
      ...[name, ...[median, least, most].map((ms) => ms.toFixed(1))],
      (median / base).toFixed(1),
    ]),
  ]);
  return Object.fromEntries(figures);
}

/** @param columns by heading, what of a round, and its decimals */
function printRounds<T>(
  title: string,
  all: Map<Peer, T[]>,
  columns: Record<string, [(round: T) => number, number]>,
): Record<string, T[]> {
  process.stdout.write(`\n${title}\n`);
  printTable([
    ['', ...Object.keys(columns)],
    ...[...all].map(([{ name }, rounds]) => [
      name,
      ...Object.values(columns).map(([of, decimals]) => spread(rounds.map(of), decimals)),
    ]),
  ]);
  return Object.fromEntries([...all].map(([{ name }, rounds]) => [name, rounds]));
}

async function bench(): Promise<void> {
  const [dns, wanted] = [await freePort(), options.parts.split(',')];
  const consul = await Consul.start(join(folder, 'consul'), {
    ...{ ports: { dns }, dns_config: { enable_truncate: true } },
  });
  ended.unshift(() => consul.stop());
  const peers = await startPeers(consul, dns);
  const results: Record<string, object> = {};
  if (wanted.includes('swap')) results.swap = printSwaps(await swaps(consul, peers));
  if (wanted.includes('deploy')) {
    const rounds = await inTurns(peers, Number(options.deploys), (peer) => deploy(consul, peer));
    const title = `${options.deploys} rolling deploys of 8 instances, 1,600 requests a second`;
    results.deploy = printRounds(title, rounds, {
      failed: [({ failed }) => failed, 0],
      wrong: [({ wrong }) => wrong, 0],
      'p99 ms': [({ p99 }) => p99, 1],
      requests: [({ requests }) => requests, 0],
    });
  }
  if (wanted.includes('churn')) {
    const rounds = await inTurns(peers, Number(options.churns), (peer) => churn(consul, peer));
    const title = `${options.churns} rounds of ${seconds} s of 20 changes a second; CPU s for 30 s`;
    results.churn = printRounds(title, rounds, {
      failed: [({ failed }) => failed, 0],
      'p99 before': [({ p99Before }) => p99Before, 1],
      'p99 with': [({ p99 }) => p99, 1],
      worst: [({ worst }) => worst, 0],
      nginx: [({ nginx }) => nginx, 1],
      sidecar: [({ sidecar }) => sidecar, 1],
      Consul: [({ consul }) => consul, 1],
    });
  }
  writeJson(options.json, 'peers', results);
}

/** Whether this machine's nginx has `resolve`. */
function hasResolve(): boolean {
  const [major = 0, minor = 0, patch = 0] = (findNginx()?.version ?? '').split('.').map(Number);
  return major * 1e6 + minor * 1e3 + patch >= 1_027_003;
}

/** Runs this again in a Debian whose nginx has it. */
async function inDebian(): Promise<void> {
  const root = join(fetched, 'bench/forky');
  makeRoot('forky', root, ['nginx', 'libnginx-mod-http-lua', 'lua-cjson']);
  const json = '.parts/bench/peers.json';
  const rest = Object.entries({ ...options, json }).map(([name, value]) => `--${name}=${value}`);
  const script = 'test/bench/peers.ts';
  const child = runInside(root, ['node', '--import', 'tsx', script, ...rest]);
  child.stdout?.pipe(process.stdout);
  const [status] = await once(child, 'close');
  rmSync(root, { recursive: true });
  if (status !== 0) process.exitCode = 1;
  else if (options.json !== undefined) copyFileSync(join(checkout, json), options.json);
}

try {
  if (hasResolve()) await bench();
  else await inDebian();
} finally {
  for (const end of ended) await end().catch(() => {});
  remove();
}
