// Proves what outlives what: a HUP keeps the table, a restart begins anew from
// the snapshot, and a damaged snapshot stops nothing and stays for a person to
// see.
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { until } from '../stack/process.ts';
import {
  assertServing,
  client,
  deadPeer,
  deadPeers,
  type Openresty,
  read,
  restart,
  serve,
  snapshot,
  startOpenresty,
} from './openresty.ts';

const all = '/v1/upstreams';
const web = `${all}/web`;

async function assertEmpty({ admin }: Openresty): Promise<void> {
  const status = JSON.parse(await admin.get('/v1/status'));
  assert.deepEqual([status.version, status.source, status.upstreams], [0, 'empty', {}]);
  assert.deepEqual((await read(admin)).document, { upstreams: {} });
}

test('a HUP keeps the table, its instance and its version; new workers follow', async () => {
  const open = await startOpenresty();
  const { admin, nginx } = open;
  await serve(open);
  // What the file says must not come back over what is newer.
  writeFileSync(nginx.snapshot, snapshot({ upstreams: { old: { peers: {} } } }));
  const before = await read(admin);
  const old = nginx.workers();
  nginx.hup();
  await until('new workers only', () => nginx.workers().every((pid) => !old.includes(pid)));
  const fresh = client(`127.0.0.1:${nginx.adminPort}`);
  assert.deepEqual(await read(fresh), before);
  await assertServing({ ...open, web: client(`127.0.0.1:${nginx.port}`) });

  const { etag } = await fresh.write('PATCH', web, { peers: null });
  assert.equal(etag.slice(0, 17), before.etag.slice(0, 17));
  const requests = client(`127.0.0.1:${nginx.port}`);
  assert.equal((await requests.send('GET', '/')).status, 503);
  await fresh.write('PATCH', web, { peers: { [open.backend.address]: {} } });
  assert.equal((await requests.send('GET', '/')).status, 200);
});

test('an old worker follows the table to its last request', async () => {
  const open = await startOpenresty({
    workers: 1,
    locations: `
      location = /late {
          access_by_lua_block {
              local flags = ngx.shared.reloadless_counters
              flags:set("held", true)
              while not flags:get("go") do ngx.sleep(0.01) end
          }
          proxy_pass http://web;
      }
      location = /held {
          content_by_lua_block { ngx.print(ngx.shared.reloadless_counters:get("held")) }
      }
      location = /go {
          content_by_lua_block { ngx.shared.reloadless_counters:set("go", true) }
      }`,
  });
  const { nginx, backend } = open;
  const url = `127.0.0.1:${nginx.port}`;
  await open.admin.write('PUT', web, { peers: { [deadPeer(1)]: {} } });
  const [old] = nginx.workers();
  const late = open.web.send('GET', '/late');
  const other = client(url);
  await until('the request is there', async () => (await other.get('/held')) === 'true');
  nginx.hup();
  const fresh = await until('a connection to the new worker', async () => {
    const to = client(open.twin);
    return Number((await to.send('GET', all)).headers['x-worker']) !== old && to;
  });
  await fresh.write('PUT', web, { peers: { [backend.address]: {} } });
  await client(url).get('/go');
  const { status, body, headers } = await late;
  assert.deepEqual([status, body, Number(headers['x-worker'])], [200, 'backend\n', old]);
});

test('a HUP onto a dict of another layout starts anew from the snapshot', async () => {
  const open = await startOpenresty({
    locations: `
      # as another Lua would have left it, whose heads are others
      location = /other {
          content_by_lua_block {
              local dict = ngx.shared.reloadless
              dict:set("layout", tonumber(ngx.var.arg_number))
              dict:set("h:web:" .. dict:get("u:web"), "of another layout")
          }
      }`,
  });
  const { nginx, backend } = open;
  const document = { upstreams: { web: { peers: { [backend.address]: {} } } } };
  writeFileSync(nginx.snapshot, snapshot(document));
  for (const [number, said] of [
    ['', /\[warn\].*is of layout 0 /],
    ['99', /\[warn\].*is of layout 99 /],
  ] as const) {
    const admin = client(`127.0.0.1:${nginx.adminPort}`);
    const peers = { [deadPeer(1)]: {} };
    await admin.write('PUT', all, { upstreams: { web: { peers }, other: { peers } } });
    const before = await read(admin);
    const web = client(`127.0.0.1:${nginx.port}`);
    await web.get(`/other?number=${number}`);
    const { length } = nginx.errorLog;
    const old = nginx.workers();
    nginx.hup();
    await until('new workers only', () => nginx.workers().every((pid) => !old.includes(pid)));
    const now = await read(client(`127.0.0.1:${nginx.adminPort}`));
    assert.deepEqual(now.document, document);
    assert.notEqual(now.etag.slice(0, 17), before.etag.slice(0, 17));
    await assertServing({ ...open, web: client(`127.0.0.1:${nginx.port}`) });
    const log = nginx.errorLog.slice(length);
    assert.match(log, said);
    assert.doesNotMatch(log, /\[error\]/);
  }
});

test('a restart changes the instance and loads the snapshot', async () => {
  const open = await startOpenresty();
  const { admin, backend } = open;
  await serve(open);
  const before = await read(admin);
  const document = {
    upstreams: {
      web: {
        owner: 'reloadless',
        fail_timeout: 0.1,
        peers: { [backend.address]: { id: 'ü/[1]' } },
      },
      six: { peers: { '[fd00::7]:80': { backup: true }, '[::1]:80': {} } },
      big: { peers: deadPeers(1000, (i) => ({ weight: i })) },
      none: { peers: {} },
    },
  };
  const content = snapshot(document);
  const log = await restart(open, content);
  assert.match(log, /\[notice\].*snapshot .*: 4 upstreams loaded/);
  const now = await read(admin);
  assert.deepEqual(now.document, document);
  assert.notEqual(now.etag.slice(0, 17), before.etag.slice(0, 17));
  const status = JSON.parse(await admin.get('/v1/status'));
  assert.deepEqual([status.version, status.source], [1, 'snapshot']);
  await assertServing(open);
  assert.equal(readFileSync(open.nginx.snapshot, 'utf8'), content);

  // It is a table as any other from then on.
  await admin.write('PATCH', web, { peers: { [deadPeer(1)]: {} } }, { 'if-match': now.etag });
  assert.equal(JSON.parse(await admin.get('/v1/status')).source, 'admin');
});

test('a killed nginx serves its first request from the snapshot', async () => {
  const open = await startOpenresty();
  const { nginx, backend } = open;
  const document = { upstreams: { web: { peers: { [backend.address]: {} } } } };
  writeFileSync(nginx.snapshot, snapshot(document));
  await nginx.kill();
  // up() itself sends the first request
  await nginx.up();
  assert.ok(backend.requests > 0);
});

test('a snapshot that is missing or damaged leaves the table empty', async () => {
  const open = await startOpenresty();
  const { nginx, backend } = open;
  const document = { upstreams: { web: { peers: { [backend.address]: {} } } } };
  const good = snapshot(document);
  const [header = '', body = ''] = good.split('\n');
  const damaged: [string | Buffer, RegExp][] = [
    ['', /it is empty, or not a regular file/],
    ['\n', /first line is not a header/],
    [body, /first line is not a header/],
    [`${body}\n`, /first line is not a header/],
    [header, /first line is not a header/],
    [`null\n${body}\n`, /first line is not a header/],
    [`{}\n${body}\n`, /first line is not a header/],
    [`[${header}]\n${body}\n`, /first line is not a header/],
    [snapshot(document, { format: 2 }), /first line is not a header of format 1/],
    [snapshot(document, { format: '1' }), /first line is not a header of format 1/],
    [
      `${header}\n`,
      /has 0 bytes behind its first line: expected \d+, as the header says, and a newline/,
    ],
    [good.slice(0, -3), /has \d+ bytes behind its first line/],
    [`${good}x`, /has \d+ bytes behind its first line/],
    [snapshot(document, { length: undefined }), /expected nil, as the header says/],
    [snapshot(document, { length: `${body.length}` }), /as the header says/],
    [snapshot(document, { crc32: 1 }), /does not match the header's crc32/],
    [snapshot(document, { crc32: null }), /does not match the header's crc32/],
    [good.replace('"peers"', '"Peers"'), /does not match the header's crc32/],
    [Buffer.from(good.replace('web', '\xff\xfe\xfd'), 'latin1'), /crc32|bytes/],
    [snapshot('{"upstreams":'), /not JSON/],
    [snapshot(''), /not JSON/],
    [snapshot('null'), /the document is null/],
    [snapshot({}), /\/upstreams upstreams is missing/],
    [snapshot({ ...document, x: 1 }), /\/x unknown field "x"/],
    [snapshot({ upstreams: { web: { peers: [] } } }), /\/upstreams\/web\/peers an array/],
    [snapshot({ upstreams: { web: { owner: '[', peers: [] } } }), /peers an array/],
  ];
  for (const [content, said] of damaged) {
    const log = await restart(open, content);
    // The log has stderr too, where nginx says the same without the time.
    const told = log.split('\n').filter((line) => /^\d.*is not used/.test(line));
    assert.equal(told.length, 1, log);
    assert.match(
      told[0] ?? '',
      /\[error\].*reloadless: snapshot .*upstreams\.snapshot is not used: /,
    );
    assert.match(told[0] ?? '', said);
    await assertEmpty(open);
    assert.deepEqual(readFileSync(nginx.snapshot), Buffer.from(content));
  }

  // The table takes writes after that, and a later HUP leaves them alone.
  await serve(open);
  await assertServing(open);

  await nginx.stop();
  rmSync(nginx.snapshot);
  const { length } = nginx.errorLog;
  await nginx.up();
  await assertEmpty(open);
  // But for the request that waits until it is up.
  const said = nginx.errorLog.slice(length).replaceAll(/.*there is no upstream "web".*/g, '');
  assert.doesNotMatch(said, /is not used|\[error\]/);

  await nginx.stop();
  mkdirSync(nginx.snapshot);
  await nginx.up();
  await assertEmpty(open);
});
