// `npm run bench:requests`: what a request costs behind Reloadless, beside a
// static upstream, beside a Lua balancer that only returns a fixed peer (the
// floor of any), beside that one with a log_by_lua that does nothing (`log`: the
// floor of any that learns what became of a request), and beside the usual
// script that decodes JSON on each request. nginx.conf is the README's; `access`
// is round robin with access() in the location.
//
//   npm run bench:requests -- [--peers 10,100] [--rounds 10] [--seconds 2]
//     [--variants static,floor,round_robin] [--instructions]
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import got from 'got';
import { balances } from '../../agent/state/balances.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout, findNginx } from '../stack/install.mjs';
import { Nginx, type NginxOptions } from '../stack/nginx.ts';
import { freePort } from '../stack/ports.ts';
import { start, stop, until } from '../stack/process.ts';
import { canCount, instructionsPerRequest } from './instructions.ts';
import { percentile, spread } from './statistics.ts';

const pickers: readonly string[] = balances;

const { values: options } = parseArgs({
  options: {
    peers: { type: 'string', default: '10,100,1000,10000' },
    rounds: { type: 'string', default: '10' },
    seconds: { type: 'string', default: '2' },
    variants: {
      type: 'string',
      default: ['static', 'floor', 'log', ...pickers, 'access', 'json'].join(','),
    },
    instructions: { type: 'boolean', default: false },
  },
});

/** ms for which wrk loads one nginx, before the next one has its turn. */
const turn = 100;

interface Run {
  requestsPerSecond: number;
  cpuMicroseconds: number;
}

/** Peers that all really listen: one socket on every address of 127.0.0.0/8. */
function addresses(count: number, port: number): string[] {
  return Array.from(
    { length: count },
    (_, i) => `127.0.${Math.floor(i / 250)}.${(i % 250) + 1}:${port}`,
  );
}

async function startBackend(folder: string, port: number) {
  const bin = findNginx()?.bin ?? 'nginx';
  mkdirSync(join(folder, 'logs'), { recursive: true });
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; worker_processes 1; worker_cpu_affinity 10; pid nginx.pid;
error_log logs/error.log; worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
    access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;
    server { listen ${port} backlog=4096; location / { return 200 "hello, world!\\n"; } }
}
`,
  );
  const args = ['-p', folder, '-c', join(folder, 'nginx.conf'), '-e', 'logs/error.log'];
  const child = start(bin, args, join(folder, 'log'));
  await until('the backend answers', async () => (await fetch(`http://127.0.0.1:${port}`)).ok);
  return child;
}

/** What runs in an nginx without Reloadless. */
const plain = ['static', 'floor', 'log', 'json'];

/** The upstream and the server that the README tells people to write. */
function readme(): string {
  const text = readFileSync(join(checkout, 'README.md'), 'utf8');
  const block = /http \{\s+include [^\n]+\n(?<piece>.+?)\n *\}\n *```/s.exec(text);
  if (block?.groups?.piece === undefined) throw new Error('README.md has no http block');
  return block.groups.piece;
}

/** The README's piece, with each pattern replaced; one that is not there is an error. */
function edited(...changes: [RegExp, string][]): string {
  return changes.reduce((text, [pattern, by]) => {
    if (!pattern.test(text)) throw new Error(`README.md: the http block lacks ${pattern}`);
    return text.replace(pattern, () => by);
  }, readme());
}

/** What a balancer runs that only sends each request to the next of so many peers. */
function floor(count: number, port: string): string {
  return `
        local pick = package.loaded.floor_pick
        if not pick then
            local hosts, i = {}, 0
            local set = require("ngx.balancer").set_current_peer
            for k = 0, ${count - 1} do
                hosts[k + 1] = "127.0." .. math.floor(k / 250) .. "." .. k % 250 + 1
            end
            pick = function() i = i % ${count} + 1 set(hosts[i], ${port}) end
            package.loaded.floor_pick = pick
        end
        pick()`;
}

/** What the usual script runs, which decodes JSON on each request. */
function json(count: number, port: string): string {
  return `
        local cjson, dict = require("cjson"), ngx.shared.scratch
        local text = dict:get("peers")
        if not text then
            local all = {}
            for k = 0, ${count - 1} do
                all[k + 1] = { address = "127.0." .. math.floor(k / 250) .. "." .. k % 250 + 1,
                               port = ${port}, weight = 1 }
            end
            text = cjson.encode(all)
            dict:set("peers", text)
        end
        local all = cjson.decode(text)
        local peer = all[math.random(#all)]
        require("ngx.balancer").set_current_peer(peer.address, peer.port)`;
}

/**
 * The README's piece as it is printed, but for the port, for what the variant
 * is about, and for the size of the pool: no connection is closed, though some
 * peers get several requests at a time.
 */
function configuration(name: string, peers: string[], port: number): string {
  const changes: [RegExp, string][] = [
    [/listen 80;/, `listen 127.0.0.1:${port} backlog=4096; keepalive_requests 1000000000;`],
    [/keepalive 64;/, `keepalive ${peers.length + 960}; keepalive_requests 1000000000;`],
  ];
  const balancer = (code: string): [RegExp, string] => [
    /balancer_by_lua_block \{.*\}/,
    `balancer_by_lua_block { ${code} }`,
  ];
  const inLocation = (line: string): [RegExp, string] => [/location \/ \{/, `location / { ${line}`];
  const peerPort = peers[0]?.split(':')[1] ?? '';
  if (name === 'static') {
    changes.push(
      [/server 127.0.0.1:1 down;/, peers.map((peer) => `server ${peer};`).join(' ')],
      [/balancer_by_lua_block \{.*\}/, ''],
    );
  } else if (name === 'floor' || name === 'log') {
    changes.push(balancer(floor(peers.length, peerPort)));
  } else if (name === 'json') {
    changes.push(balancer(json(peers.length, peerPort)));
  }
  if (name === 'log') changes.push(inLocation('log_by_lua_block { }'));
  if (name === 'access') {
    changes.push(inLocation('access_by_lua_block { require("reloadless").access("web") }'));
  }
  return `
    ${plain.includes(name) ? 'lua_shared_dict scratch 16m; lua_malloc_trim 0;' : ''}
    ${edited(...changes)}`;
}

function nginxOptions(name: string, peers: string[]): NginxOptions {
  return {
    workers: 1,
    dict: '64m',
    main: 'worker_cpu_affinity 01;',
    plain: plain.includes(name),
    http: ({ port }) => configuration(name, peers, port),
  };
}

/** On-CPU time of a process in microseconds. */
function cpu(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/schedstat`, 'utf8').split(' ')[0]) / 1000;
}

/** Gives the upstream its peers, unless nginx.conf has them. */
async function put(nginx: Nginx, peers: string[], name: string): Promise<void> {
  if (plain.includes(name)) return;
  const all = Object.fromEntries(peers.map((peer) => [peer, {}]));
  const balance = name === 'access' ? 'round_robin' : name;
  await nginx.http.put('v1/upstreams/web', { json: { balance, hash_key: '$uri', peers: all } });
}

/** The most that one change of one peer takes of a worker: the push, and the next request. */
async function stall(nginx: Nginx, peers: string[]): Promise<number[]> {
  const pid = nginx.workers()[0] ?? 0;
  const took: number[] = [];
  // As the agent does, and users' clients: the connections stay open.
  const agent = { http: new Agent({ keepAlive: true }) };
  for (let i = 0; i < 60; i += 1) {
    const peer = peers[(i * 7919) % peers.length] ?? '';
    const before = cpu(pid);
    await nginx.http.patch('v1/upstreams/web', {
      agent,
      json: { peers: { [peer]: i % 3 === 0 ? null : { weight: (i % 3) + 1 } } },
    });
    await got(nginx.url, { agent });
    took.push((cpu(pid) - before) / 1000);
  }
  agent.http.destroy();
  // The first ones warm up: Lua is compiled as it runs.
  return took.slice(20);
}

function print(title: string, runs: Map<string, Run[]>): void {
  process.stdout.write(
    `${title.padEnd(14)}${'k req/s'.padStart(9)}${'CPU µs'.padStart(9)}   requests / static       CPU / floor\n`,
  );
  const ratios = (name: string, base: string, pick: (run: Run) => number) =>
    (runs.get(name) ?? []).map((run, i) => {
      const other = runs.get(base)?.[i];
      return other === undefined ? Number.NaN : pick(run) / pick(other);
    });
  for (const [name, all] of runs) {
    const rate = percentile(
      all.map((run) => run.requestsPerSecond / 1000),
      0.5,
    );
    const time = percentile(
      all.map((run) => run.cpuMicroseconds),
      0.5,
    );
    const toStatic = spread(
      ratios(name, 'static', (run) => run.requestsPerSecond),
      2,
    );
    const toFloor = spread(
      ratios(name, 'floor', (run) => run.cpuMicroseconds),
      2,
    );
    process.stdout.write(
      `${name.padEnd(14)}${rate.toFixed(1).padStart(9)}${time.toFixed(1).padStart(9)}   ${toStatic.padEnd(24)}${toFloor}\n`,
    );
  }
}

/** An nginx and its backend. */
interface Subject {
  name: string;
  nginx: Nginx;
  peers: string[];
  /**
   * What wrk runs: each request has another path to hash than the one before.
   * The requests are made beforehand: wrk shares caches with nginx.
   */
  script: string;
  stop: () => Promise<void>;
}

/** wrk on the other core, which runs only in its turns. */
class Load {
  readonly #subject: Subject;
  readonly #worker: number;
  readonly #wrk: ChildProcess;
  readonly #cpuBefore: number;
  #output = '';
  #ms = 0;

  constructor(subject: Subject) {
    this.#subject = subject;
    this.#worker = subject.nginx.workers()[0] ?? 0;
    this.#cpuBefore = cpu(this.#worker);
    const args = [
      '-c',
      '1',
      'wrk',
      '-t1',
      '-c64',
      '-d3600',
      '-s',
      subject.script,
      subject.nginx.url,
    ];
    this.#wrk = spawn('taskset', args, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#wrk.stdout?.setEncoding('utf8').on('data', (text) => {
      this.#output += text;
    });
    this.#wrk.kill('SIGSTOP');
  }

  async turn(ms: number): Promise<void> {
    const from = performance.now();
    this.#wrk.kill('SIGCONT');
    await sleep(ms);
    this.#wrk.kill('SIGSTOP');
    this.#ms += performance.now() - from;
  }

  async end(): Promise<Run> {
    const from = performance.now();
    const gone = once(this.#wrk, 'close');
    this.#wrk.kill('SIGCONT');
    // A thread may take the signal that its main one waits for.
    const interrupt = setInterval(() => this.#wrk.kill('SIGINT'), 10);
    await gone;
    clearInterval(interrupt);
    this.#ms += performance.now() - from;
    const failed = /Non-2xx.*|Socket errors: (?!connect 0, read 0, write 0).*/.exec(this.#output);
    if (failed !== null) process.stdout.write(`    ${this.#subject.name}: ${failed[0]}\n`);
    const requests = Number(/(\d+) requests in/.exec(this.#output)?.[1]);
    return {
      requestsPerSecond: (1000 * requests) / this.#ms,
      cpuMicroseconds: (cpu(this.#worker) - this.#cpuBefore) / requests,
    };
  }
}

/**
 * Loads one after the other, in turns so short that what else goes on in the
 * machine hits all of them alike.
 */
async function loadInTurns(subjects: Subject[], seconds: number): Promise<Run[]> {
  const loads = subjects.map((subject) => new Load(subject));
  for (let i = 0; i < (1000 * seconds) / turn; i += 1) {
    for (const load of i % 2 === 0 ? loads : loads.toReversed()) await load.turn(turn);
  }
  const runs: Run[] = [];
  for (const load of loads) runs.push(await load.end());
  return runs;
}

/**
 * An nginx and a backend for one variant alone: the pools of several would not
 * fit into a process's open files.
 */
async function startSubject(folder: string, count: number, name: string): Promise<Subject> {
  const port = await freePort();
  const peers = addresses(count, port);
  const backend = await startBackend(mkdtempSync(join(folder, 'backend-')), port);
  const nginx = await Nginx.start(mkdtempSync(join(folder, 'nginx-')), nginxOptions(name, peers));
  await put(nginx, peers, name);
  const script = join(folder, 'keys.lua');
  writeFileSync(
    script,
    `local requests, n = {}, 0
    function init()
        for i = 1, ${Math.max(500, 5 * count)} do requests[i] = wrk.format(nil, wrk.path .. i) end
    end
    function request() n = n % #requests + 1 return requests[n] end`,
  );
  const subject = {
    name,
    nginx,
    peers,
    script,
    stop: async () => {
      await nginx.stop();
      await stop(backend);
    },
  };
  // Until Lua is compiled and every peer has its pooled connections.
  await loadInTurns([subject], 2 + Math.ceil(count / 1000));
  return subject;
}

async function measure(count: number, folder: string): Promise<void> {
  const subjects: Subject[] = [];
  try {
    for (const name of options.variants.split(',')) {
      subjects.push(await startSubject(folder, count, name));
    }
    const runs = new Map<string, Run[]>(subjects.map(({ name }) => [name, []]));
    for (let round = 0; round < Number(options.rounds); round += 1) {
      const all = await loadInTurns(subjects, Number(options.seconds));
      for (const [i, run] of all.entries()) runs.get(subjects[i]?.name ?? '')?.push(run);
    }
    print(`${count} peers`, runs);
    for (const { name, nginx, peers } of subjects.filter((each) => pickers.includes(each.name))) {
      const took = await stall(nginx, peers);
      process.stdout.write(
        `  a change of one peer, ${name}: ${spread(took, 2)} ms of the worker, p99 ${percentile(took, 0.99).toFixed(2)}\n`,
      );
    }
    process.stdout.write('\n');
  } finally {
    for (const subject of subjects) await subject.stop();
  }
}

/** User-space instructions of one request, which no other load on the machine changes. */
async function count(folder: string): Promise<void> {
  if (!canCount()) throw new Error('--instructions needs valgrind');
  const port = await freePort();
  const backend = await startBackend(join(folder, 'counted'), port);
  try {
    for (const peers of options.peers.split(',').map((n) => addresses(Number(n), port))) {
      for (const name of options.variants.split(',')) {
        const instructions = await instructionsPerRequest(join(folder, `${name}-${peers.length}`), {
          options: nginxOptions(name, peers),
          prepare: (nginx) => put(nginx, peers, name),
        });
        process.stdout.write(
          `${name.padEnd(14)}${(instructions / 1000).toFixed(1).padStart(9)} thousand instructions a request, ${peers.length} peers\n`,
        );
      }
    }
  } finally {
    await stop(backend);
  }
}

async function main(): Promise<void> {
  const { folder, remove } = temporaryFolder();
  try {
    if (options.instructions) return await count(folder);
    process.stdout.write('Medians over rounds, with the smallest and the largest.\n\n');
    for (const count of options.peers.split(',')) await measure(Number(count), folder);
  } finally {
    remove();
  }
}

await main();
