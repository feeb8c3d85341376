// `npm run bench:targets`: what many nginx cost one agent. From a write to Consul
// until a healthy nginx routes by it, and the agent's CPU for each change: with
// one target, with fifty, and with fifty of which one answers 5 s late and one
// is dead.
//
//   npm run bench:targets -- [--changes 100] [--targets 50] [--agent other/dist/main.js] [--json FILE]
import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Backend } from '../stack/backend.ts';
import { Cable } from '../stack/cable.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { start, stop, until } from '../stack/process.ts';
import { tokenFile } from '../stack/token.ts';
import { type Figure, figure, printTable, writeJson } from './report.ts';
import { closeConnections, perPath, routed, send } from './routed.ts';
import { cpuMs, residentMiB } from './usage.ts';

const { values: options } = parseArgs({
  options: {
    changes: { type: 'string', default: '100' },
    targets: { type: 'string', default: '50' },
    agent: { type: 'string', default: 'dist/main.js' },
    json: { type: 'string' },
  },
});
const [changes, count] = [Number(options.changes), Number(options.targets)];
/** Seconds without a change. */
const idle = 10;
/** Between two changes, in ms. */
const pause = 20;

interface Result {
  targets: string;
  /** ms from the write until a healthy target routes by it. */
  routed: Figure;
  /** ms of the agent's. */
  cpuPerChange: number;
  /** Of a core, without a change. */
  idlePercent: number;
  residentMiB: number;
}

const { folder, remove } = temporaryFolder();
const ended: (() => Promise<void> | void)[] = [remove, closeConnections];

async function measure(
  targets: string,
  consul: Consul,
  healthy: Nginx[],
  others: string[],
): Promise<Result> {
  const backends = [await Backend.start('even'), await Backend.start('odd')];
  const register = (i: number) => {
    const port = backends[i % 2]?.port ?? 0;
    return consul.register({ name: 'web', id: 'web', address: '127.0.0.1', port });
  };
  await register(0);
  const openresty = [...healthy.map(({ admin }) => admin), ...others];
  const config = {
    consul: { address: consul.address },
    openresty: openresty.map((address) => ({ address, token_file: tokenFile })),
    snapshot: join(folder, 'agent.snapshot'),
    upstreams: { web: {} },
  };
  writeFileSync(join(folder, 'agent.yml'), JSON.stringify(config));
  const main = resolve(checkout, options.agent);
  const command = [main, 'run', '-c', join(folder, 'agent.yml')];
  const agent = start(process.execPath, command, join(folder, 'agent.log'));
  const pid = agent.pid ?? 0;
  try {
    for (const { url } of healthy) {
      await until('it serves', async () => (await send(`${url}/web`)) === 'even');
    }
    await sleep(3000);
    const quiet = cpuMs(pid);
    await sleep(idle * 1000);
    const perMs = (cpuMs(pid) - quiet) / (idle * 1000);
    const times: number[] = [];
    const before = cpuMs(pid);
    const began = performance.now();
    for (let i = 1; i <= changes; i += 1) {
      const { url = '' } = healthy[i % healthy.length] ?? {};
      times.push(await routed(`${url}/web`, () => register(i), i % 2 === 0 ? 'even' : 'odd'));
      await sleep(pause);
    }
    await sleep(200);
    const spent = cpuMs(pid) - before - perMs * (performance.now() - began);
    return {
      targets,
      routed: figure(times),
      cpuPerChange: spent / changes,
      idlePercent: 100 * perMs,
      residentMiB: residentMiB(pid),
    };
  } catch (error) {
    (await import('node:fs')).cpSync(folder, '/tmp/failed', { recursive: true });
    throw error;
  } finally {
    await stop(agent);
    for (const backend of backends) await backend.stop();
  }
}

function print(results: Result[]): void {
  const one = results[0] as Result;
  process.stdout.write(`${changes} changes; routed: ms from the write to a healthy target\n`);
  const ratio = (value: number, base: number) => (value / base).toFixed(2);
  printTable([
    ['targets', 'routed', 'p99', 'of one', 'CPU ms a change', 'of one', 'idle %', 'RSS MiB'],
    ...results.map((result) => [
      result.targets,
      ...[result.routed.median, result.routed.p99].map((ms) => ms.toFixed(2)),
      ratio(result.routed.median, one.routed.median),
      result.cpuPerChange.toFixed(2),
      ratio(result.cpuPerChange, one.cpuPerChange),
      result.idlePercent.toFixed(2),
      result.residentMiB.toFixed(0),
    ]),
  ]);
}

try {
  const consul = await Consul.start(join(folder, 'consul'));
  ended.unshift(() => consul.stop());
  const all = await Promise.all(
    Array.from({ length: count }, (_, i) => {
      const options = { workers: 1, dict: '1m', http: perPath };
      return Nginx.start(join(folder, `nginx-${i}`), options);
    }),
  );
  ended.unshift(async () => {
    await Promise.all(all.map((nginx) => nginx.stop()));
  });
  const [slow, dead, ...healthy] = all as [Nginx, Nginx, ...Nginx[]];
  const cable = await Cable.start(slow.adminPort);
  ended.unshift(() => cable.stop());
  const results = [
    await measure('1', consul, healthy.slice(0, 1), []),
    await measure(`${count}`, consul, all, []),
  ];
  cable.late(5000);
  await dead.stop();
  const others = [`http://127.0.0.1:${cable.port}`, dead.admin];
  results.push(await measure(`${count}, one slow, one dead`, consul, healthy, others));
  print(results);
  writeJson(options.json, 'targets', { changes, results });
} finally {
  for (const end of ended) await end();
}
