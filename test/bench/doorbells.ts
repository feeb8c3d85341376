// `npm run bench:doorbells`: many services over plain HTTP, with Consul's default
// limit of connections: how long until a request is routed by a change, what it
// costs both sides, and whether another client of the same host is ever refused.
//
//   npm run bench:doorbells -- [--services 1000] [--instances 20] [--changes 25]
//     [--seconds 10] [--json FILE]
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { Agent as HttpAgent, request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Agent } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { until } from '../stack/process.ts';
import { perName } from '../stack/stack.ts';
import { percentile } from './statistics.ts';

const { values: options } = parseArgs({
  options: {
    services: { type: 'string', default: '1000' },
    instances: { type: 'string', default: '20' },
    changes: { type: 'string', default: '25' },
    seconds: { type: 'string', default: '10' },
    json: { type: 'string' },
  },
});
const [services, instances, changes, seconds] = [
  options.services,
  options.instances,
  options.changes,
  options.seconds,
].map(Number) as [number, number, number, number];

/**
 * Of the services, those that serve requests: of the first third the checks are
 * changed, of the second an instance goes, of the last one comes. So what goes
 * and comes is a surprise: what was changed last is looked at first.
 */
const serving = 3 * changes;
/** What a transaction of Consul may hold. */
const perTransaction = 64;

const { folder, remove } = temporaryFolder();
const backends = { first: await Backend.start('first'), backup: await Backend.start('backup') };
const consul = await Consul.start(join(folder, 'consul'));
const nginx = await Nginx.start(join(folder, 'nginx'), {
  workers: 1,
  dict: '256m',
  http: perName,
});
const client = new HttpAgent({ keepAlive: true });
const name = (i: number) => `s${i}`;

/** ns on a processor, of all threads. */
function cpuMs(pid: number): number {
  return readdirSync(`/proc/${pid}/task`)
    .map((task) => readFileSync(`/proc/${pid}/task/${task}/schedstat`, 'utf8').split(' ')[0])
    .reduce((sum, ns) => sum + Number(ns) / 1e6, 0);
}

function residentMiB(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

/** How many connections a process has to Consul. */
function connections(pid: number): number {
  const port = Number(new URL(consul.address).port).toString(16).toUpperCase().padStart(4, '0');
  const lines = readFileSync('/proc/net/tcp', 'utf8').split('\n');
  const ours = lines.filter((line) => line.includes(`0100007F:${port} 01 `));
  const inodes = new Set(ours.map((line) => `socket:[${line.trim().split(/\s+/)[9]}]`));
  const links = readdirSync(`/proc/${pid}/fd`).map((fd) => {
    try {
      return readlinkSync(`/proc/${pid}/fd/${fd}`);
    } catch {
      return '';
    }
  });
  return links.filter((link) => inodes.has(link)).length;
}

/** Those that serve nothing: they are there, and are well. */
async function registerOthers(): Promise<void> {
  const nodes = Array.from({ length: instances }, (_, n) => `n${n}`);
  const operations: object[] = nodes.map((Node, n) => {
    return { Node: { Verb: 'set', Node: { Node, Address: `10.0.0.${n + 1}` } } };
  });
  for (let i = serving; i < services; i += 1) {
    for (const Node of nodes) {
      const ID = `${name(i)}-${Node}`;
      const Service = { ID, Service: name(i), Port: 1000 + (i % 60_000) };
      const Check = { Node, CheckID: ID, Name: ID, Status: 'passing', ServiceID: ID };
      operations.push({ Service: { Verb: 'set', Node, Service } });
      operations.push({ Check: { Verb: 'set', Check } });
    }
  }
  for (let i = 0; i < operations.length; i += perTransaction) {
    await consul.http.put('txn', { json: operations.slice(i, i + perTransaction) });
  }
}

/** The first instance of a serving service, or what stands by for it. */
async function register(i: number, backend: keyof typeof backends): Promise<void> {
  const { port } = backends[backend];
  const meta = { backup: String(backend === 'backup') };
  await consul.register({
    ...{ name: name(i), id: `${name(i)}-${backend}`, address: '127.0.0.1', port, meta },
  });
}

function ask(i: number): Promise<string> {
  return new Promise((resolve, reject) => {
    const sent = request(`${nginx.url}/${name(i)}/`, { agent: client }, async (response) => {
      let text = '';
      for await (const chunk of response) text += chunk;
      resolve(text.trim());
    });
    sent.on('error', reject);
    sent.end();
  });
}

/** Milliseconds from the write until the start of the first request that is routed by it. */
async function routed(i: number, write: () => Promise<void>, wanted: string): Promise<number> {
  const began = performance.now();
  const written = write();
  for (;;) {
    const sent = performance.now();
    if ((await ask(i)) === wanted) {
      await written;
      return sent - began;
    }
    // So that the machine is left to those who are measured.
    await sleep(2);
  }
}

/** Asks Consul on a new connection each time, until it is told to stop. @returns how many were refused */
function anotherClient(): () => Promise<{ asked: number; refused: number }> {
  let isOver = false;
  const counts = { asked: 0, refused: 0 };
  const work = (async () => {
    while (!isOver) {
      counts.asked += 1;
      const answer = await fetch(`${consul.address}/v1/status/leader`, {
        headers: { connection: 'close' },
      }).catch(() => undefined);
      if (answer?.status !== 200) counts.refused += 1;
      await answer?.text();
      await sleep(20);
    }
  })();
  return async () => {
    isOver = true;
    await work;
    return counts;
  };
}

interface Cost {
  agent: number;
  consul: number;
}

/** CPU of both, in percent of a core, while work is done. */
async function cost(agent: number, work: () => Promise<void>): Promise<Cost> {
  const pids = { agent, consul: consul.pid ?? 0 };
  const before = { agent: cpuMs(pids.agent), consul: cpuMs(pids.consul) };
  const began = performance.now();
  await work();
  const took = performance.now() - began;
  const share = (of: keyof Cost) => (100 * (cpuMs(pids[of]) - before[of])) / took;
  return { agent: share('agent'), consul: share('consul') };
}

/** Registers an instance of no service of ours, ten times a second. */
async function churn(): Promise<void> {
  for (let i = 0; i < seconds * 10; i += 1) {
    const Service = { Service: 'foreign', ID: 'foreign', Port: 1 + (i % 60_000) };
    const node = { Node: 'foreign', Address: '10.1.0.1' };
    await consul.http.put('catalog/register', { json: { ...node, Service } });
    await sleep(100);
  }
}

function print(rows: [string, string][]): void {
  for (const [what, value] of rows) process.stdout.write(`${what.padEnd(56)}${value}\n`);
}

let agent: Agent | undefined;
try {
  await registerOthers();
  for (let i = 0; i < serving; i += 1) {
    await register(i, 'backup');
    if (i < 2 * changes) await register(i, 'first');
  }
  const upstreams = Object.fromEntries(
    Array.from({ length: services }, (_, i) => [name(i), { hold_empty: 0 }]),
  );
  const config = join(folder, 'reloadless.yml');
  const consulAt = { address: consul.address };
  writeFileSync(
    config,
    JSON.stringify({ consul: consulAt, openresty: [{ address: nginx.admin }], upstreams }),
  );
  const stopOther = anotherClient();
  const log = join(folder, 'agent.log');
  const began = performance.now();
  const level = ['--log-level', 'info'];
  agent = Agent.start(log, ['-c', config, '--snapshot', nginx.snapshot, ...level]);
  const { pid = 0 } = agent;
  const headers = { 'content-type': 'application/json' };
  await until(
    'nginx has all of it',
    async () => {
      await sleep(200);
      const all = await nginx.http('v1/upstreams', { headers }).json<{ upstreams: object }>();
      return Object.keys(all.upstreams).length === services;
    },
    120,
  );
  const synced = (performance.now() - began) / 1000;
  // Until the first sweep is over.
  await sleep(3_000 + (services / 600) * 2_000);

  const id = (i: number) => `${name(i)}-first`;
  type Step = [write: (i: number) => Promise<void>, wanted: keyof typeof backends];
  const critical: Step = [(i) => consul.health(id(i), 'critical'), 'backup'];
  const passing: Step = [(i) => consul.health(id(i), 'passing'), 'first'];
  const gone: Step = [(i) => consul.deregister(id(i)), 'backup'];
  const come: Step = [(i) => register(i, 'first'), 'first'];
  const times: Record<string, number[]> = {};

  async function change(what: string, i: number, [write, wanted]: Step): Promise<void> {
    times[what] = [...(times[what] ?? []), await routed(i, () => write(i), wanted)];
    // Not always at the same moment of a look.
    await sleep(Math.random() * 300);
  }

  for (let i = 0; i < changes; i += 1) {
    await change('critical', i, critical);
    await change('passing', i, passing);
  }
  for (let i = 0; i < changes; i += 1) await change('gone', changes + i, gone);
  for (let i = 0; i < changes; i += 1) await change('come', 2 * changes + i, come);
  for (let i = 0; i < changes; i += 1) {
    for (const step of [gone, come]) await change('again', i, step);
  }
  const other = await stopOther();
  await sleep(3_000 + (services / 600) * 2_000);
  const open = connections(pid);
  const idle = await cost(pid, () => sleep(seconds * 1000));
  const churned = await cost(pid, churn);
  const plan = agent.messages.filter((line) => line.startsWith('watches: ')).at(-1);
  const refusals = agent.messages.filter((line) => line.includes('trying again')).length;
  const rss = residentMiB(pid);

  process.stdout.write(`${services} services of ${instances} instances over plain HTTP\n`);
  process.stdout.write(`${plan}\n`);
  const named = Object.entries({
    critical: 'an instance goes critical: out of rotation',
    passing: 'it passes again: in rotation',
    gone: 'an instance is deregistered: out of rotation',
    come: 'an instance is registered: in rotation',
    again: 'the same two of a service that has just changed',
  });
  print([['ms from the write to Consul, by the first request', '    median       p99       max']]);
  print(
    named.map(([what, text]) => {
      const all = times[what] ?? [];
      const cells = [0.5, 0.99, 1].map((share) => percentile(all, share).toFixed(1).padStart(10));
      return [text, cells.join('')];
    }),
  );
  const percent = ({ agent, consul }: Cost) => {
    return `agent ${agent.toFixed(1)} %, Consul ${consul.toFixed(1)} % of a core`;
  };
  print([
    ['from the start of the agent to all of it in nginx', `${synced.toFixed(1)} s`],
    ['connections of the agent to Consul', String(open)],
    ['while nothing changes', percent(idle)],
    ['while foreign instances come and go, 10 a second', percent(churned)],
    ['RSS of the agent', `${rss.toFixed(0)} MiB`],
    ['another client on the host, refused', `${other.refused} of ${other.asked}`],
    ['faults in the log of the agent', String(refusals)],
  ]);
  if (options.json !== undefined) {
    const figures = { services, instances, changes, times, synced, connections: open };
    const all = { ...figures, idle, churned, rss, other, faults: refusals, plan };
    writeFileSync(options.json, `${JSON.stringify(all, undefined, 2)}\n`);
  }
} finally {
  await agent?.stop();
  await nginx.stop();
  await consul.stop();
  for (const backend of Object.values(backends)) await backend.stop();
  client.destroy();
  remove();
}
