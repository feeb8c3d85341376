// `npm run bench:propagation`: how long from a write to Consul until the first
// request that OpenResty routes by the new state, beside the floor of any sidecar
// on this machine: a blocking query that returns, then one bare HTTP POST to
// nginx. The floor has no requests to route meanwhile: bare-loop.mjs, which does
// just these two by Node alone, shows what they cost. Over plain HTTP and over
// HTTPS, where Consul speaks HTTP/2, and with one, 50 and 500 services that the
// agent follows, of which one changes.
//
//   npm run bench:propagation -- [--changes 100] [--services 1,50,500] [--wires http,https]
//     [--agent other/dist/main.js] [--json FILE]
import { type ChildProcess, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Backend } from '../stack/backend.ts';
import { certify } from '../stack/certificate.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { freePort } from '../stack/ports.ts';
import { isRunning, start, stop, until } from '../stack/process.ts';
import { authorization, tokenFile } from '../stack/token.ts';
import { createAsker } from './loop.mjs';
import { type Figure, figure, printTable, writeJson } from './report.ts';
import { closeConnections, perPath, routed, send } from './routed.ts';

const { values: options } = parseArgs({
  options: {
    changes: { type: 'string', default: '100' },
    services: { type: 'string', default: '1,50,500' },
    wires: { type: 'string', default: 'http,https' },
    agent: { type: 'string', default: 'dist/main.js' },
    json: { type: 'string' },
  },
});
const changes = Number(options.changes);

interface Result {
  wire: string;
  services: number;
  what: string;
  ms: Figure;
  ofFloor: number;
  ofBare: number;
}

const { folder, remove } = temporaryFolder();
const ended: (() => Promise<void> | void)[] = [remove, closeConnections];
const { cert, key } = certify(folder);

interface Parts {
  consul: Consul;
  nginx: Nginx;
  /** Of its own: what one writes would be another's doing to the other, who then looks first. */
  bareNginx: Nginx;
  backends: Backend[];
}

/** Milliseconds from the write until a blocking query has returned and a POST to nginx is answered. */
async function floor(
  address: string,
  service: string,
  { bareNginx }: Parts,
  write: () => Promise<void>,
): Promise<number> {
  const { ask, close } = createAsker(address, readFileSync(cert));
  const path = `/v1/health/service/${service}?stale`;
  const { headers } = await ask(path);
  const change = ask(`${path}&index=${headers['x-consul-index']}&wait=30s`);
  // The query must be waiting when the write comes.
  await new Promise((resolve) => setTimeout(resolve, 5));
  const began = performance.now();
  const written = write();
  JSON.parse((await change).text);
  await send(`${bareNginx.url}/post`, 'POST', '{}');
  const took = performance.now() - began;
  await written;
  close();
  return took;
}

/** @returns undefined where the agent does not start with so many */
async function measure(
  wire: string,
  address: string,
  services: number,
  parts: Parts,
): Promise<Result[] | undefined> {
  const { consul, nginx, bareNginx, backends } = parts;
  const register = (name: string, i: number) =>
    consul.register({ name, id: name, address: '127.0.0.1', port: backends[i % 2]?.port ?? 0 });
  // Of this case alone: what serves one of these is up.
  const [idle, web, bare] = ['floor', 'web', 'bare'].map(
    (name) => `${name}-${wire}-${services}`,
  ) as [string, string, string];
  const others = Array.from({ length: services - 1 }, (_, i) => `${web}-${i}`);
  for (const name of [idle, web, bare, ...others]) await register(name, 0);
  const config = {
    consul: { address, tls: { ca_file: cert } },
    openresty: [{ address: nginx.admin, token_file: tokenFile }],
    ...{ snapshot: nginx.snapshot, owner: 'propagation' },
    upstreams: Object.fromEntries([web, ...others].map((name) => [name, {}])),
  };
  const file = join(folder, 'agent.yml');
  writeFileSync(file, JSON.stringify(config));
  const main = resolve(checkout, options.agent);
  const agent = start(process.execPath, [main, 'run', '-c', file], join(folder, 'agent.log'));
  const loop: ChildProcess = spawn(
    process.execPath,
    [join(checkout, 'test/bench/bare-loop.mjs'), address, bareNginx.admin, authorization, bare],
    { env: { ...process.env, NODE_EXTRA_CA_CERTS: cert }, stdio: ['ignore', 'ignore', 'inherit'] },
  );
  const url = (name: string) => `${name === bare ? bareNginx.url : nginx.url}/${name}`;
  const change = (name: string, i: number) =>
    routed(url(name), () => register(name, i), i % 2 === 0 ? 'even' : 'odd');
  try {
    for (const name of [bare, web, ...others.slice(-1)]) {
      await until(`${name} serves`, async () => {
        return !isRunning(agent) || (await send(url(name))) === 'even';
      });
      if (!isRunning(agent)) return undefined;
    }
    const times: Record<'floor' | 'bare' | 'web' | 'atOnce', number[]> = {
      ...{ floor: [], bare: [], web: [], atOnce: [] },
    };
    for (let i = 1; i <= changes; i += 1) {
      times.floor.push(await floor(address, idle, parts, () => register(idle, i)));
      times.bare.push(await change(bare, i));
      times.web.push(await change(web, i));
    }
    for (let i = 1; i <= changes; i += 1) times.atOnce.push(await change(web, i + changes));
    const [base, simple] = [figure(times.floor).median, figure(times.bare).median];
    const rows: [string, number[]][] = [
      ['floor: blocking query + one POST to nginx', times.floor],
      ['bare loop: first request routed anew', times.bare],
      ['Reloadless: first request routed anew', times.web],
      ['the same, each change at once after the last', times.atOnce],
    ];
    return rows.map(([what, all]) => {
      const ms = figure(all);
      return { wire, services, what, ms, ofFloor: ms.median / base, ofBare: ms.median / simple };
    });
  } finally {
    await stop(agent);
    await stop(loop);
  }
}

function print(results: Result[]): void {
  process.stdout.write(`${changes} changes, ms from the write to Consul\n`);
  printTable([
    ['', 'wire', 'services', 'median', 'p99', 'least', 'most', 'of floor', 'of bare'],
    ...results.map(({ wire, services, what, ms, ofFloor, ofBare }) => [
      ...[what, wire, `${services}`],
      ...[ms.median, ms.p99, ms.least, ms.most, ofFloor, ofBare].map((value) => value.toFixed(2)),
    ]),
  ]);
}

try {
  const https = await freePort();
  const consul = await Consul.start(join(folder, 'consul'), {
    ...{ cert_file: cert, key_file: key, ports: { https } },
  });
  ended.unshift(() => consul.stop());
  const startNginx = async (name: string) => {
    const nginx = await Nginx.start(join(folder, name), { workers: 1, http: perPath });
    ended.unshift(() => nginx.stop());
    return nginx;
  };
  const [nginx, bareNginx] = [await startNginx('nginx'), await startNginx('bare-nginx')];
  const backends = [await Backend.start('even'), await Backend.start('odd')];
  for (const backend of backends) ended.unshift(() => backend.stop());
  const results: Result[] = [];
  for (const wire of options.wires.split(',')) {
    const address = wire === 'https' ? `https://127.0.0.1:${https}` : consul.address;
    for (const services of options.services.split(',').map(Number)) {
      const found = await measure(wire, address, services, { consul, nginx, bareNginx, backends });
      if (found === undefined) process.stdout.write(`${wire}: ${services} services are refused\n`);
      else results.push(...found);
    }
  }
  print(results);
  writeJson(options.json, 'propagation', { changes, results });
} finally {
  for (const end of ended) await end();
}
