// `npm run bench:stalls`: how long big requests to the admin API hold a worker:
// the longest time between two turns of its event loop, and what it keeps of
// memory.
import { readFileSync } from 'node:fs';
import { deadPeers } from '../integration/openresty.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { spread } from './statistics.ts';

const rounds = 3;
const count = 200_000;

const { folder, remove } = temporaryFolder();
const nginx = await Nginx.start(folder, {
  dict: '64m',
  workers: 1,
  changes: [
    [
      'require("reloadless").init_worker()',
      `require("reloadless").init_worker()
       local clock = require("reloadless.shared.clock")
       local last = clock.now()
       longest = 0
       local function tick()
           longest, last = math.max(longest, clock.now() - last), clock.now()
           ngx.timer.at(0.001, tick)
       end
       tick()`,
    ],
  ],
  http: ({ port }) => `server {
    listen 127.0.0.1:${port};
    location / {
        content_by_lua_block {
            ngx.sleep(0.01)     -- for the tick after this turn
            ngx.print(longest * 1000)
            longest = 0
        }
    }
  }`,
});

async function longestStall(): Promise<number> {
  return Number(await nginx.http(nginx.url, { prefixUrl: '' }).text());
}

function peakMiB(): number {
  const status = readFileSync(`/proc/${nginx.workers()[0]}/status`, 'utf8');
  return Number(/^VmHWM:\s+(\d+)/m.exec(status)?.[1]) / 1024;
}

const web = 'v1/upstreams/web';
const all = 'v1/upstreams';
const peers = deadPeers(count);
const other = deadPeers(count, () => ({ weight: 2 }));
const ten: [string, object][] = [];
const entries = Object.entries(peers);
for (let i = 0; i < count; i += 10) {
  ten.push([`web-${i}`, { peers: Object.fromEntries(entries.slice(i, i + 10)) }]);
}
const nulls = Object.fromEntries(Object.keys(peers).map((key) => [key, null]));

const cases: [string, 'GET' | 'PUT' | 'PATCH', string, unknown][] = [
  ['PUT of an upstream', 'PUT', web, { peers }],
  ['the same again', 'PUT', web, { peers }],
  ['PUT, each peer changed', 'PUT', web, { peers: other }],
  ['PATCH, each peer changed', 'PATCH', web, { peers }],
  ['GET', 'GET', all, undefined],
  ['PATCH of nulls', 'PATCH', web, { peers: nulls }],
  ['PUT of upstreams of 10', 'PUT', all, { upstreams: Object.fromEntries(ten) }],
  ['GET', 'GET', all, undefined],
  ['PUT of nothing', 'PUT', all, { upstreams: {} }],
  ['PUT of a long string', 'PUT', all, 'x'.repeat(63e6)],
];

process.stdout.write(`${count} peers: ms without a turn of the worker; s in all; peak MiB\n\n`);
try {
  const stalls = cases.map((): number[] => []);
  const times = cases.map((): number[] => []);
  const peaks: number[] = [];
  for (let round = 0; round < rounds; round += 1) {
    for (const [i, [, method, path, body]] of cases.entries()) {
      const text = body === undefined ? undefined : JSON.stringify(body);
      await longestStall();
      const began = performance.now();
      await nginx.http(path, {
        method,
        ...(text === undefined ? {} : { body: text }),
        headers: { 'content-type': 'application/json' },
        throwHttpErrors: false,
      });
      times[i]?.push((performance.now() - began) / 1000);
      stalls[i]?.push(await longestStall());
      peaks[i] = peakMiB();
    }
  }
  for (const [i, [name]] of cases.entries()) {
    const stall = spread(stalls[i] ?? [], 0).padEnd(20);
    const time = spread(times[i] ?? [], 2).padEnd(20);
    process.stdout.write(`${name.padEnd(28)}${stall}${time}${peaks[i]?.toFixed(0)}\n`);
  }
} finally {
  await nginx.stop();
  remove();
}
