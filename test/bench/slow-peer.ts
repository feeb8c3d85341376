// `npm run bench:slow-peer`: ten backends, one of them ten times slower. What
// share of the requests it gets, and how long clients wait, with nginx's own
// ways to balance and with ours, in interleaved rounds of wrk.
//
//   npm run bench:slow-peer -- [--rounds 7] [--seconds 4] [--connections 32]
//     [--variants nginx_least_conn,least_conn]
import { execFileSync } from 'node:child_process';
import { readFileSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import got from 'got';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { startNginxBackend } from '../stack/nginx-backend.ts';
import { freePort } from '../stack/ports.ts';
import { percentile, spread } from './statistics.ts';

const ofNginx: Record<string, string> = {
  nginx_round_robin: '',
  nginx_least_conn: 'least_conn;',
  nginx_random_two: 'random two least_conn;',
};
const ours = ['round_robin', 'least_conn', 'random', 'ewma'];

const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '4' },
    connections: { type: 'string', default: '32' },
    variants: { type: 'string', default: [...Object.keys(ofNginx), ...ours].join(',') },
  },
});

interface Run {
  rate: number;
  /** Of the requests, in percent, that the slow backend got. */
  share: number;
  /** In ms, of nginx's log of all requests: wrk's own percentiles count a slow one several times. */
  p50: number;
  p99: number;
}

/** ms after which nginx writes what it has logged. */
const flush = 200;

/** Ten backends; each answer takes an exponential time, of 50 ms or of 5 ms in the mean. */
function backends(addresses: string[]): string {
  const server = (address: string, i: number) => `
    server {
        listen ${address};
        location / {
            content_by_lua_block {
                ngx.shared.hits:incr(${i === 0 ? '"slow"' : '"fast"'}, 1, 0)
                ngx.sleep(-math.log(1 - math.random()) * ${i === 0 ? 0.05 : 0.005})
                ngx.print("ok")
            }
        }
        location = /hits {
            content_by_lua_block {
                local hits = ngx.shared.hits
                ngx.print('{"slow":', hits:get("slow") or 0, ',"fast":', hits:get("fast") or 0, '}')
                hits:flush_all()
            }
        }
    }`;
  return `lua_shared_dict hits 1m; ${addresses.map(server).join('')}`;
}

function configuration(addresses: string[], port: number): string {
  const upstream = (name: string, lines: string) =>
    `upstream ${name} { ${lines} keepalive 128; keepalive_requests 1000000000; }`;
  const servers = addresses.map((address) => `server ${address};`).join(' ');
  const all = [
    ...Object.entries(ofNginx).map(([name, line]) =>
      upstream(name, `zone ${name} 256k; ${line} ${servers}`),
    ),
    ...ours.map((name) =>
      upstream(
        name,
        `server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("${name}") }`,
      ),
    ),
  ];
  const names = [...Object.keys(ofNginx), ...ours];
  const location = (name: string) => `location = /${name} {
            proxy_pass http://${name};
            access_log times.log times buffer=1m flush=${flush}ms;
        }`;
  return `
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    keepalive_requests 1000000000;
    log_format times $request_time;
    ${all.join('\n    ')}
    server {
        listen 127.0.0.1:${port};
        location = / { return 204; }
        ${names.map(location).join('\n        ')}
    }`;
}

/** @param log the file of the times of all requests since it was emptied */
async function load(
  nginx: Nginx,
  log: string,
  slow: string,
  name: string,
  seconds: number,
): Promise<Run> {
  const hits = () => got(`http://${slow}/hits`).json<{ slow: number; fast: number }>();
  await hits();
  truncateSync(log);
  const args = ['-t1', `-c${options.connections}`, `-d${seconds}`, `${nginx.url}/${name}`];
  const output = execFileSync('wrk', args, { encoding: 'utf8' });
  const failed = /Non-2xx.*|Socket errors.*/.exec(output)?.[0];
  if (failed !== undefined) process.stdout.write(`    ${name}: ${failed}\n`);
  const { slow: n, fast } = await hits();
  await sleep(2 * flush);
  const times = readFileSync(log, 'utf8')
    .trim()
    .split('\n')
    .map((line) => Number(line) * 1000);
  return {
    rate: Number(/Requests\/sec:\s+([\d.]+)/.exec(output)?.[1]),
    share: (100 * n) / (n + fast),
    p50: percentile(times, 0.5),
    p99: percentile(times, 0.99),
  };
}

function print(runs: Map<string, Run[]>): void {
  const widths = [8, 20, 17, 24, 20, 20];
  const columns = ['req/s', 'slow %', 'p50 ms', 'p99 ms', '/ least_conn', '/ random two'];
  const cells = (name: string, all: string[]) =>
    `${name.padEnd(20)}${all.map((cell, i) => cell.padStart(widths[i] ?? 0)).join('')}\n`;
  process.stdout.write(cells('', columns));
  const toBase = (all: Run[], base: string) =>
    all.map((run, i) => run.p99 / (runs.get(base)?.[i]?.p99 ?? Number.NaN));
  for (const [name, all] of runs) {
    const row = [
      percentile(
        all.map((run) => run.rate),
        0.5,
      ).toFixed(0),
      spread(
        all.map((run) => run.share),
        2,
      ),
      spread(
        all.map((run) => run.p50),
        1,
      ),
      spread(
        all.map((run) => run.p99),
        1,
      ),
      spread(toBase(all, 'nginx_least_conn'), 2),
      spread(toBase(all, 'nginx_random_two'), 2),
    ];
    process.stdout.write(cells(name, row));
  }
}

async function main(): Promise<void> {
  const { folder, remove } = temporaryFolder();
  const port = await freePort();
  const addresses = Array.from({ length: 10 }, (_, i) => `127.0.0.${i + 1}:${port}`);
  const slow = addresses[0] ?? '';
  const stop = await startNginxBackend(backends(addresses), `http://${slow}/hits`);
  const nginx = await Nginx.start(join(folder, 'nginx'), {
    workers: 1,
    http: (ports) => configuration(addresses, ports.port),
  });
  try {
    const peers = Object.fromEntries(addresses.map((address) => [address, {}]));
    for (const name of ours) {
      await nginx.http.put(`v1/upstreams/${name}`, { json: { balance: name, peers } });
    }
    const variants = options.variants.split(',');
    const log = join(folder, 'nginx', 'times.log');
    for (const name of variants) await load(nginx, log, slow, name, 1);

    const runs = new Map<string, Run[]>(variants.map((name) => [name, []]));
    for (let round = 0; round < Number(options.rounds); round += 1) {
      const order = round % 2 === 0 ? variants : variants.toReversed();
      for (const name of order) {
        runs.get(name)?.push(await load(nginx, log, slow, name, Number(options.seconds)));
      }
    }
    process.stdout.write(
      'Medians over rounds, with the smallest and the largest; the last two columns are of p99.\n\n',
    );
    print(runs);
  } finally {
    await nginx.stop();
    await stop();
    remove();
  }
}

await main();
