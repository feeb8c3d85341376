// Proves that what a dead worker held, the write lock or places of max_conns, is
// given back although another process has its pid by now: that of the test.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { startWaiting } from '../integration/backends.ts';
import { client, onTwoWorkers, startOpenresty } from '../integration/openresty.ts';
import { until } from '../stack/process.ts';

const open = await startOpenresty({
  locations: `
    location = /v1/status { return 204; }
    location = /die {
        content_by_lua_block {
            require("reloadless.table.lock").exclusively(function()
                require("ffi").C.kill(ngx.worker.pid(), 9)
            end)
        }
    }
    # whatever holds the lock, with another pid
    location = /reuse {
        content_by_lua_block {
            local dict = ngx.shared.reloadless
            local was = tostring(dict:get("lock"))
            local is = was:gsub("^%d+", ngx.var.arg_pid)
            dict:set("lock", tonumber(is) or is)
            ngx.print(was)
        }
    }
    # a worker that is gone, with our pid, and what it holds
    location = /share {
        content_by_lua_block {
            local dict = ngx.shared.reloadless_inflight
            local id = require("reloadless.shared.process").id()
            local n = dict:incr("births", 1)
            dict:set("w:" .. n, (id:gsub("^%d+", ngx.var.arg_pid)))
            dict:set("o:" .. n .. ":web:" .. ngx.var.arg_peer, 2)
            dict:set("m:web:" .. ngx.var.arg_peer, 2)
        }
    }`,
});
const { admin, web } = open;
const url = `127.0.0.1:${open.nginx.port}`;
const path = '/v1/upstreams/web';

test('the write lock of a dead worker is taken', async () => {
  await admin.write('PUT', path, { peers: {} });
  const [one, two] = await onTwoWorkers(url);
  await assert.rejects(one.send('GET', '/die'));
  const was = await two.get(`/reuse?pid=${process.pid}`);
  assert.notEqual(Number.parseInt(was, 10), process.pid);
  const other = client(open.twin);
  await until(
    'a write',
    async () => (await other.send('PUT', path, { max_fails: 2 })).status === 200,
  );
});

test('the places of a dead worker are free again', async () => {
  const waiting = await startWaiting();
  await admin.write('PUT', path, { peers: { [waiting.address]: { max_conns: 2 } } });
  await web.send('GET', `/share?pid=${process.pid}&peer=${waiting.address}`);
  assert.ok((await client(url).send('GET', '/')).status >= 502);
  const again = until('a place', async () => (await client(url).send('GET', '/')).status === 200);
  (await waiting.next()).end('ok');
  await again;
});
