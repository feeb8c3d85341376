// `npm run bench:boot`: how long nginx takes from its start to its first answer
// with a snapshot of 10,000 upstreams of 10 peers, and without one.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { saveSnapshot } from '../../agent/snapshot/file.ts';
import type { Document, Peers } from '../../agent/state/document.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { spread } from './statistics.ts';

const rounds = 5;
const upstreams = 10_000;
const peers = 10;

function document(address: (upstream: number, peer: number) => string, more: object): Document {
  const all: Document['upstreams'] = {};
  for (let i = 0; i < upstreams; i += 1) {
    const own: Peers = {};
    for (let k = 0; k < peers; k += 1) {
      own[address(i, k)] = { weight: 1, id: `service-${i}-${k}`, ...more };
    }
    all[`service-${i}`] = { owner: 'reloadless', balance: 'round_robin', peers: own };
  }
  return { upstreams: all };
}

const ipv4 = (i: number, k: number) => `10.${i >> 8}.${i & 255}.${k + 1}:${8000 + k}`;
const ipv6 = (i: number, k: number) => `[fd00:${(i + 1).toString(16)}::${k + 1}]:${8000 + k}`;

const cases: [string, string, Document | undefined][] = [
  ['no snapshot', '16m', undefined],
  ['IPv4', '16m', document(ipv4, {})],
  ['IPv6, with zones', '32m', document(ipv6, { zone: 'a' })],
  ['IPv4, half of it fits', '6m', document(ipv4, {})],
];

process.stdout.write(
  `Seconds from start to first answer, ${upstreams} upstreams of ${peers} peers\n\n`,
);
for (const [name, dict, content] of cases) {
  const { folder, remove } = temporaryFolder();
  const nginx = await Nginx.start(join(folder, 'nginx'), {
    dict,
    http: ({ port }) => `server { listen 127.0.0.1:${port}; return 204; }`,
  });
  try {
    rmSync(nginx.snapshot, { force: true });
    if (content !== undefined)
      await saveSnapshot(nginx.snapshot, { savedAt: new Date(), document: content });
    const times: number[] = [];
    for (let i = 0; i < rounds; i += 1) {
      await nginx.stop();
      const began = performance.now();
      await nginx.up();
      times.push((performance.now() - began) / 1000);
    }
    process.stdout.write(`${name.padEnd(24)}${spread(times, 2)}\n`);
  } finally {
    await nginx.stop();
    remove();
  }
}
