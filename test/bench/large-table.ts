// What the agent's state and one target cost while nothing changes, with 5,000
// upstreams of 20 peers in the state and an nginx that answers 304. It is a
// program of its own, `node large-table.ts SECONDS`, so that nothing else is counted.
import '../../agent/util/frugal.ts';

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { createAdminClient } from '../../agent/openresty/admin.ts';
import { startGenerations } from '../../agent/openresty/generations.ts';
import type { Peers } from '../../agent/state/document.ts';
import { createState } from '../../agent/state/state.ts';
import { compileAtOnce } from '../../agent/util/frugal.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { until } from '../stack/process.ts';
import { tokenFile } from '../stack/token.ts';

const upstreams = 5000;
const peers = 20;
const owner = 'large';

const seconds = Number(process.argv[2] ?? 60);
const { folder, remove } = temporaryFolder();
compileAtOnce();
const nginx = await Nginx.start(join(folder, 'large'), {
  dict: '128m',
  workers: 1,
  http: ({ port }) => `server { listen 127.0.0.1:${port}; return 204; }`,
});
const client = createAdminClient({
  endpoint: { name: nginx.admin, url: nginx.admin },
  token_file: tokenFile,
});
const state = createState(() => {});
const names = Array.from({ length: upstreams }, (_, i) => `service-${i}`);
const declared = { origin: 'bench', settings: {}, holdFor: 60_000 };
state.declare(new Map(names.map((name) => [name, declared])), true);
for (const [i, name] of names.entries()) {
  const some: Peers = {};
  for (let k = 0; k < peers; k += 1) {
    some[`10.${i >> 8}.${i & 255}.${k + 1}:8080`] = { weight: 1, id: `${name}-${k}` };
  }
  state.observe(name, { instances: peers, peers: some }, 0);
}
const identity = { id: owner, host: 'here', pid: process.pid, since: new Date().toISOString() };
const who = { owner, identity };
const target = startGenerations({
  ...{ client, state, who: () => who },
  learnt() {},
  gained() {},
  applied() {},
  log: pino({ level: 'silent' }),
});

/** @returns the CPU of this process, in percent of a core, over so many seconds */
async function measure(): Promise<string> {
  const before = process.cpuUsage();
  await sleep(seconds * 1000);
  const { user, system } = process.cpuUsage(before);
  return ((100 * (user + system)) / 1e6 / seconds).toFixed(2);
}

try {
  const reader = client.another();
  await until(
    'nginx has all of it',
    async () => {
      await sleep(1000);
      const found = await reader.get(undefined, AbortSignal.timeout(20_000));
      return Object.keys(found?.document.upstreams ?? {}).length === upstreams;
    },
    120,
  );
  reader.close();
  await sleep(5000);
  // V8 collects what the push has left: docs/discoveries/quiet-collections.md.
  const first = await measure();
  const then = await measure();
  process.stdout.write(
    `5,000 upstreams of 20 peers, idle: ${first} % of a core in the first ${seconds} s, ${then} % in the next\n`,
  );
} finally {
  await target.stop();
  await nginx.stop();
  remove();
}
