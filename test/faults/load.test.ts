// Proves that under load no idempotent request fails while a retry can save it:
// a tenth of the peers refuse or hang, and the list changes every 100 ms.
import assert from 'node:assert/strict';
import { createServer } from 'node:net';
import { after, describe, test } from 'node:test';
import { balances } from '../../agent/state/balances.ts';
import { peerStatus, startOpenresty, upstreamBlock } from '../integration/openresty.ts';
import { startNginxBackend } from '../stack/nginx-backend.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { swarm } from './swarm.ts';

const seconds = 20;

const open = await startOpenresty({
  servers: balances.map((name) => upstreamBlock(name, 64)).join(''),
  locations: balances
    .map((name) => `location = /${name} { proxy_pass http://${name}; }`)
    .join('\n        '),
});

const port = await freePort();
const good = Array.from({ length: 18 }, (_, i) => `127.0.0.${i + 1}:${port}`);
after(
  await startNginxBackend(
    `server { ${good.map((address) => `listen ${address};`).join(' ')} return 200 "ok"; }`,
    `http://${good[0]}/`,
  ),
);
const refusing = `127.0.0.1:${await freePort()}`;

/** Takes every connection and answers nothing. */
async function startHanging(): Promise<{ address: string; seen: () => number }> {
  let seen = 0;
  const server = createServer((socket) => {
    seen += 1;
    socket.on('error', () => {}).resume();
  });
  const at = await freePort();
  await new Promise<void>((resolve) => server.listen(at, '127.0.0.1', resolve));
  after(() => server.close());
  return { address: `127.0.0.1:${at}`, seen: () => seen };
}

/** Changes the peers at random every 100 ms, the healthy ones; at least half stay. */
async function change(upstream: string, isOver: () => boolean): Promise<number> {
  const gone = new Set<string>();
  let changes = 0;
  while (!isOver()) {
    const peer = good[Math.floor(Math.random() * good.length)] ?? '';
    const fields = { weight: 1 + Math.floor(Math.random() * 4) };
    const removes = !gone.has(peer) && gone.size < good.length / 2 && Math.random() < 0.6;
    if (removes) gone.add(peer);
    else gone.delete(peer);
    await open.admin.write('PATCH', `/v1/upstreams/${upstream}`, {
      peers: { [peer]: removes ? null : fields },
    });
    changes += 1;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return changes;
}

describe('no request fails', { concurrency: true }, () => {
  for (const balance of balances) {
    test(balance, async () => {
      const hanging = await startHanging();
      const peers = [...good, refusing, hanging.address];
      await open.admin.write('PUT', `/v1/upstreams/${balance}`, {
        balance,
        hash_key: '$arg_key',
        read_timeout: 1,
        // so that the bad ones are tried again and again
        fail_timeout: 1,
        peers: Object.fromEntries(peers.map((peer) => [peer, {}])),
      });
      const end = Date.now() + seconds * 1000;
      const isOver = () => Date.now() >= end;
      const [tally, changes] = await Promise.all([
        swarm({
          port: open.nginx.port,
          connections: 32,
          next: (n) => (isOver() ? undefined : `/${balance}?key=${n}`),
        }),
        change(balance, isOver),
      ]);

      assert.deepEqual([Object.keys(tally.statuses), tally.broken], [['200'], 0]);
      assert.ok((tally.statuses[200] ?? 0) > 1000, JSON.stringify(tally));
      assert.ok(changes > seconds, `${changes} changes`);
      assert.ok(hanging.seen() > 1, `${hanging.seen()} requests at the hanging peer`);
      await until('the counters', async () => {
        const { failures } = await peerStatus(open.admin, { address: refusing }, balance);
        return failures > 1;
      });
    });
  }
});
