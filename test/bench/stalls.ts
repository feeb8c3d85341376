// `npm run bench:stalls`: what 100,000 peers take: room in the dict, memory of a
// worker, time to boot from the snapshot, and how long each request to the admin
// API, each change and each reading of it holds a worker: the longest time
// between two turns of its event loop.
//
//   npm run bench:stalls -- [--peers 100000] [--rounds 5] [--json FILE]
import { readFileSync, writeFileSync } from 'node:fs';
import { Agent } from 'node:http';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createAdminClient } from '../../agent/openresty/admin.ts';
import { push } from '../../agent/openresty/push.ts';
import { saveSnapshot } from '../../agent/snapshot/file.ts';
import type { Document, Peers } from '../../agent/state/document.ts';
import { diffDocuments } from '../../agent/state/parts.ts';
import { deadPeer } from '../integration/openresty.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { tokenFile } from '../stack/token.ts';
import { spread } from './statistics.ts';

const { values: options } = parseArgs({
  options: {
    peers: { type: 'string', default: '100000' },
    rounds: { type: 'string', default: '5' },
    json: { type: 'string' },
  },
});
const count = Number(options.peers);
const rounds = Number(options.rounds);

/** The same peers in many upstreams, as a site has them, and in a few huge ones. */
const shapes = [10, 10_000].map((size) => Math.min(size, count));

/** In ms: what passed, and what of it the worker ran. */
interface Stall {
  wall: number;
  cpu: number;
}

interface Measured {
  what: string;
  stalls: Stall[];
  seconds: number[];
}

function documentOf(size: number, weight: number): Document {
  const upstreams: Document['upstreams'] = {};
  for (let i = 0; i < count; i += 1) {
    const name = `service-${Math.floor(i / size)}`;
    upstreams[name] ??= { owner: 'reloadless', balance: 'round_robin', peers: {} };
    (upstreams[name].peers as Peers)[deadPeer(i)] = { weight, id: `${name}-${i % size}` };
  }
  return { upstreams };
}

// A timer in each turn notes the longest one; requests read it. `build` does
// what the first request of each upstream does behind a change.
const clocks = `
    local ffi = require("ffi")
    ffi.cdef[[
        struct bench_time { long seconds, nanoseconds; };
        int clock_gettime(int id, struct bench_time *time);
    ]]
    local time = ffi.new("struct bench_time")
    local function now(id)
        ffi.C.clock_gettime(id, time)
        return tonumber(time.seconds) * 1e3 + tonumber(time.nanoseconds) / 1e6
    end
    local wall, cpu = now(1), now(3)
    bench = { wall = 0, cpu = 0 }
    local function tick()
        local at, ran = now(1), now(3)
        bench.wall = math.max(bench.wall, at - wall)
        bench.cpu = math.max(bench.cpu, ran - cpu)
        wall, cpu = at, ran
        ngx.timer.at(0.001, tick)
    end
    tick()
    function bench.build(name)
        require("reloadless").access(name)
    end`;

function startNginx(folder: string): Promise<Nginx> {
  return Nginx.start(folder, {
    dict: '64m',
    workers: 1,
    changes: [
      [
        'require("reloadless").init_worker()',
        `require("reloadless").init_worker()
         ${clocks}`,
      ],
    ],
    http: ({ port }) => `server {
    listen 127.0.0.1:${port};
    location / {
        content_by_lua_block {
            ngx.sleep(0.01)     -- for the tick after this turn
            ngx.print('{"wall":', bench.wall, ',"cpu":', bench.cpu, "}")
            bench.wall, bench.cpu = 0, 0
        }
    }
    # in the phase in which users call it, where nothing pauses
    location /build/ {
        access_by_lua_block { bench.build(ngx.var.uri:sub(8)) }
        content_by_lua_block { ngx.print("built") }
    }
    location = /build {
        access_by_lua_block {
            for i = 0, ngx.var.arg_upstreams - 1 do
                bench.build("service-" .. i)
                ngx.sleep(0.001)
            end
        }
        content_by_lua_block { ngx.print("built") }
    }
  }`,
  });
}

/** In MiB, of the worker. */
function memory(nginx: Nginx): { own: number; all: number } {
  const status = readFileSync(`/proc/${nginx.workers()[0]}/status`, 'utf8');
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024;
  return { own: field('RssAnon'), all: field('VmRSS') };
}

async function measureShape(size: number, folder: string) {
  const nginx = await startNginx(folder);
  const measured: Measured[] = [];
  const site = { prefixUrl: nginx.url, agent: { http: new Agent({ keepAlive: true }) } };
  const longest = async (): Promise<Stall> => JSON.parse(await nginx.http('', site).text());

  async function measure(what: string, times: number, run: (round: number) => Promise<unknown>) {
    const stalls: Stall[] = [];
    const seconds: number[] = [];
    for (let round = 0; round < times; round += 1) {
      await longest();
      const began = performance.now();
      await run(round);
      seconds.push((performance.now() - began) / 1000);
      stalls.push(await longest());
    }
    measured.push({ what, stalls, seconds });
  }

  const send = (method: 'GET' | 'PUT' | 'PATCH', path: string, body?: unknown) =>
    nginx.http(path, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      headers: { 'content-type': 'application/json' },
      throwHttpErrors: false,
    });
  const build = (what: string) => nginx.http(`build${what}`, site).text();

  const all = 'v1/upstreams';
  const document = documentOf(size, 1);
  const other = documentOf(size, 2);
  const names = Object.keys(document.upstreams);
  const client = createAdminClient({
    endpoint: { name: nginx.admin, url: nginx.admin },
    token_file: tokenFile,
  });
  const { signal } = new AbortController();
  const sync = async (to: Document) => {
    const mirror = await client.get(undefined, signal);
    if (mirror === undefined) throw new Error('no document');
    const patch = diffDocuments(mirror.document, to);
    if (patch === undefined) return;
    let parts = 0;
    const { refused } = await push(client, mirror, patch, signal, () => {
      parts += 1;
    });
    if (refused.size > 0) throw new Error([...refused.values()][0]?.message);
    return parts;
  };

  try {
    const free = async () => JSON.parse(await nginx.http('v1/status').text()).free_space as number;
    const empty = await free();
    let parts: number | undefined;
    await measure('first sync, in parts', 1, async () => {
      parts = await sync(document);
    });
    const dict = empty - (await free());
    const idle = memory(nginx);

    await measure('first request of each upstream', 1, () => build(`?upstreams=${names.length}`));
    const built = memory(nginx);

    const name = (round: number) => `service-${(round * 7919) % names.length}`;
    await measure('change of one peer', 10 * rounds, (round) => {
      const [peer = ''] = Object.keys(document.upstreams[name(round)]?.peers ?? {});
      return send('PATCH', `${all}/${name(round)}`, { peers: { [peer]: { weight: 3 } } });
    });
    await measure('next request, upstream changed', 10 * rounds, async (round) => {
      const [, peer = ''] = Object.keys(document.upstreams[name(round)]?.peers ?? {});
      await send('PATCH', `${all}/${name(round)}`, { peers: { [peer]: { weight: 3 } } });
      await longest();
      await build(`/${name(round)}`);
    });
    await measure('next request, another changed', 10 * rounds, async (round) => {
      const [, , peer = ''] = Object.keys(document.upstreams[name(round)]?.peers ?? {});
      await send('PATCH', `${all}/${name(round)}`, { peers: { [peer]: { weight: 3 } } });
      await longest();
      await build(`/${name(round + 1)}`);
    });
    await measure('status', rounds, () => send('GET', 'v1/status'));
    await measure('listing', rounds, () => send('GET', all));
    await measure('one upstream', rounds, (round) => send('GET', `${all}/${name(round)}`));
    await measure('each peer changed, in parts', 1, () => sync(other));
    await measure('PUT of all, changed', rounds, (round) =>
      send('PUT', all, round % 2 === 0 ? document : other),
    );
    await measure('PUT of the same', rounds, () => send('PUT', all, other));
    await measure('all gone, in parts', 1, () => sync({ upstreams: {} }));
    await measure('PUT of all', rounds, async () => {
      await send('PUT', all, { upstreams: {} });
      await longest();
      await send('PUT', all, document);
    });
    await measure('PUT of nothing', 1, () => send('PUT', all, { upstreams: {} }));
    await measure('PUT of a long string', 1, () => send('PUT', all, 'x'.repeat(63e6)));

    await saveSnapshot(nginx.snapshot, { savedAt: new Date(), document });
    const boot: number[] = [];
    for (let round = 0; round < rounds; round += 1) {
      await nginx.stop();
      const began = performance.now();
      await nginx.up();
      boot.push((performance.now() - began) / 1000);
    }
    const booted = memory(nginx);
    return { size, parts, dict, idle, built, boot, booted, measured };
  } finally {
    client.close();
    site.agent.http.destroy();
    await nginx.stop();
  }
}

type Result = Awaited<ReturnType<typeof measureShape>>;

function print({ size, parts, dict, idle, built, boot, booted, measured }: Result): void {
  const line = (...texts: string[]) => process.stdout.write(`${texts.join('')}\n`);
  const mib = (bytes: number) => `${bytes.toFixed(1)} MiB`;
  line(`${count} peers in upstreams of ${size}\n`);
  line(
    `dict: ${mib(dict / 2 ** 20)}, ${(dict / count).toFixed(0)} bytes a peer, ${parts} parts pushed`,
  );
  line(`worker of its own: ${mib(idle.own)}, with all upstreams built ${mib(built.own)}`);
  line(`boot from the snapshot: ${spread(boot, 2)} s, worker then ${mib(booted.own)}\n`);
  line(`${''.padEnd(34)}longest stall, ms      the worker's CPU      s in all`);
  for (const { what, stalls, seconds } of measured) {
    const wall = spread(
      stalls.map((stall) => stall.wall),
      1,
    );
    const cpu = spread(
      stalls.map((stall) => stall.cpu),
      1,
    );
    line(what.padEnd(34), wall.padEnd(23), cpu.padEnd(22), spread(seconds, 2));
  }
  line('');
}

const { folder, remove } = temporaryFolder();
try {
  const results: Result[] = [];
  for (const size of shapes) {
    const result = await measureShape(size, join(folder, `${size}`));
    print(result);
    results.push(result);
  }
  if (options.json !== undefined) {
    writeFileSync(options.json, `${JSON.stringify({ peers: count, rounds, results }, null, 2)}\n`);
  }
} finally {
  remove();
}
