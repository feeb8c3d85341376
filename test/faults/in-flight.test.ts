// Proves that the counts of requests under way are back to 0 after 100,000
// requests, whatever became of them: aborts, redirects, retries, a worker killed.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { peersOf } from '../integration/backends.ts';
import { startOpenresty, upstreamBlock } from '../integration/openresty.ts';
import { startNginxBackend } from '../stack/nginx-backend.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { swarm } from './swarm.ts';

const total = 100_000;

const open = await startOpenresty({
  servers: upstreamBlock('other', 32),
  locations: `
    location /error-page {
        proxy_pass http://web;
        proxy_intercept_errors on;
        error_page 404 502 503 504 = @other;
    }
    location /try-files { try_files /none @web; }
    location /accel { proxy_pass http://web; }
    location /inner { internal; proxy_pass http://other; }
    location /exec { content_by_lua_block { ngx.exec("@web") } }
    location /static {
        proxy_pass http://web;
        error_page 404 502 503 504 =200 @static;
        proxy_intercept_errors on;
    }
    location @other { proxy_pass http://other; }
    location @web { proxy_pass http://web; }
    location @static { return 200 "static"; }
    location = /held {
        content_by_lua_block {
            local dict = ngx.shared.reloadless_inflight
            for _, key in ipairs(dict:get_keys(0)) do
                if key:find("^[mo]:") then ngx.say(key, " ", dict:get(key)) end
            end
        }
    }
    location = /half {
        content_by_lua_block {
            local dict = ngx.shared.reloadless_inflight
            for _, key in ipairs(dict:get_keys(0)) do
                local n = key:match("^w:(%d+)$")
                if n and tostring(dict:get(key)):match("^%d+") == ngx.var.arg_pid then
                    ngx.say((dict:incr("o:" .. n .. ":" .. ngx.var.arg_peer, 1, 0)))
                end
            end
        }
    }`,
});
const { admin, nginx, web } = open;

/** What the dict says that workers hold, by key, without what is 0. */
async function held(): Promise<Record<string, number>> {
  const lines = (await web.get('/held')).trim().split('\n');
  const pairs = lines.map((line) => line.split(' ') as [string, string]);
  return Object.fromEntries(pairs.map(([k, n]) => [k, Number(n)]).filter(([, n]) => n !== 0));
}

/** The peers that have requests under way, as /v1/status says. */
async function active(): Promise<string[]> {
  const { upstreams } = JSON.parse(await admin.get('/v1/status'));
  return Object.entries(upstreams as Record<string, { peers: Record<string, { active: number }> }>)
    .flatMap(([name, { peers }]) =>
      Object.entries(peers).map(([key, peer]) => [`${name} ${key}`, peer.active] as const),
    )
    .filter(([, count]) => count !== 0)
    .map(([key, count]) => `${key}: ${count}`);
}

/** Peers that answer, that answer late and that cut, and two that refuse. */
async function startBackends() {
  const [good, cutting] = [await freePort(), await freePort()];
  const at = (port: number, n: number) =>
    Array.from({ length: n }, (_, i) => `127.0.0.${i + 1}:${port}`);
  const listen = (all: string[]) => all.map((address) => `listen ${address};`).join(' ');
  const peers = {
    good: at(good, 6),
    cutting: at(cutting, 2),
    dead: ['127.0.0.1:1', '127.0.0.2:1'],
  };
  const stop = await startNginxBackend(
    `server {
        ${listen(peers.good)}
        location / { return 200 "ok"; }
        location /late {
            content_by_lua_block { ngx.sleep(math.random() * 0.03) ngx.print("late") }
        }
        location /error-page { return 404; }
        location /static { return 503; }
        location /accel { add_header X-Accel-Redirect /inner; return 200; }
    }
    server { ${listen(peers.cutting)} return 444; }`,
    `http://${peers.good[0]}/`,
  );
  after(stop);
  return peers;
}

const paths = ['/', '/', '/', '/late', '/error-page', '/try-files', '/accel', '/exec', '/static'];

for (const balance of ['round_robin', 'least_conn']) {
  test(`nothing is left under way after ${total / 2} requests, ${balance}`, async () => {
    const { good, cutting, dead } = await startBackends();
    const limited = good.slice(0, 3);
    const settings = { balance, max_fails: 0 };
    await admin.write('PUT', '/v1/upstreams', {
      upstreams: {
        web: {
          ...settings,
          peers: peersOf(
            ...limited.map((address, i): [string, object] => [address, { max_conns: 2 + 4 * i }]),
            ...good.slice(3),
            ...[...cutting, ...dead].map((address): [string, object] => [
              address,
              { max_conns: 9 },
            ]),
          ),
        },
        other: {
          ...settings,
          peers: peersOf([good[0] ?? '', { max_conns: 3 }], ...limited.slice(1), dead[0] ?? ''),
        },
      },
    });

    let most = 0;
    let isOver = false;
    const watching = (async () => {
      while (!isOver) {
        const counts = Object.entries(await held().catch(() => ({}) as Record<string, number>));
        for (const [key, n] of counts) if (key.startsWith('m:')) most = Math.max(most, n);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    })();
    const victim = nginx.workers()[0] ?? 0;
    const tally = await swarm({
      port: nginx.port,
      connections: 300,
      next: (n) => {
        if (n === total / 4) process.kill(victim, 'SIGKILL');
        return n < total / 2 ? paths[n % paths.length] : undefined;
      },
      abort: () => (Math.random() < 0.06 ? Math.random() * 20 : undefined),
    });
    isOver = true;
    await watching;

    assert.ok(!nginx.workers().includes(victim));
    assert.ok(most > 0, 'the limits were never used');
    assert.ok(tally.aborted > 100, `${tally.aborted} aborted`);
    assert.ok((tally.statuses[200] ?? 0) > total / 4, JSON.stringify(tally));
    // the killed worker's
    assert.ok(tally.broken <= 300, `${tally.broken} broken`);
    await until('nothing is under way', async () => {
      assert.deepEqual([await active(), await held()], [[], {}]);
      return true;
    });
    // nothing goes below 0 later on, either
    await swarm({
      port: nginx.port,
      connections: 20,
      next: (n) => (n < 500 ? '/late' : undefined),
    });
    await until('nothing is under way', async () => {
      assert.deepEqual([await active(), await held()], [[], {}]);
      return true;
    });
  });
}

test('a worker killed between its share and the count of a peer leaves no wrong count', async () => {
  const { good } = await startBackends();
  const [peer = ''] = good;
  await admin.write('PUT', '/v1/upstreams', {
    upstreams: { web: { peers: peersOf([peer, { max_conns: 5 }]) } },
  });
  const victim = nginx.workers()[0] ?? 0;
  await until('it is known', async () => {
    return (await web.get(`/half?pid=${victim}&peer=web:${peer}`)).startsWith('1');
  });
  const slow = Array.from({ length: 3 }, () => web.get('/late'));
  process.kill(victim, 'SIGKILL');
  await Promise.allSettled(slow);
  await until('its share is given back', async () => {
    assert.deepEqual(await held(), {});
    return true;
  });
});
