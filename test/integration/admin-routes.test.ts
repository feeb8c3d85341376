// Proves each route and method of the admin API: what it answers, what it does
// to the table, and how ETags guard it.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import {
  assertProblem,
  assertRefused,
  assertServing,
  read,
  serve,
  startOpenresty,
} from './openresty.ts';

const open = await startOpenresty();
const { admin, backend } = open;
const a = '10.0.0.1:80';
const b = '[fd00::7]:8080';
const all = '/v1/upstreams';
const web = '/v1/upstreams/web';

beforeEach(() => serve(open));

/** What is stored of an upstream, or undefined. */
async function stored(name: string): Promise<unknown> {
  return (await read(admin)).document.upstreams[name];
}

test('a new table is empty, at version 0 of a random instance', async () => {
  const fresh = await startOpenresty();
  const { document, etag } = await read(fresh.admin);
  assert.deepEqual(document, { upstreams: {} });
  assert.match(etag, /^"[0-9a-f]{16}\.0"$/);
  assert.notEqual(etag.slice(0, 17), (await read(admin)).etag.slice(0, 17));
  const status = JSON.parse(await fresh.admin.get('/v1/status'));
  assert.equal(`"${status.instance}.0"`, etag);
  assert.deepEqual([status.version, status.source, status.upstreams], [0, 'empty', {}]);
});

test('PUT replaces the whole document', async () => {
  const document = {
    upstreams: {
      web: { peers: { [a]: {} } },
      api: { owner: 'me', max_fails: 0, fail_timeout: 0.1, peers: { [b]: { backup: true } } },
      none: { peers: {} },
    },
  };
  const before = await read(admin);
  const written = await admin.write('PUT', all, document);
  assert.deepEqual(written.changed, ['api', 'none', 'web']);
  assert.deepEqual(await read(admin), { document, etag: written.etag });
  assert.equal(written.etag, before.etag.replace(/\d+"$/, `${written.version}"`));

  const smaller = { upstreams: { api: document.upstreams.api } };
  assert.deepEqual((await admin.write('PUT', all, smaller)).changed, ['none', 'web']);
  assert.deepEqual((await read(admin)).document, smaller);
  assert.deepEqual((await admin.write('PUT', all, { upstreams: {} })).changed, ['api']);
  assert.deepEqual((await read(admin)).document, { upstreams: {} });
});

test('PATCH of the document merges, and null removes', async () => {
  const patch = {
    upstreams: {
      web: {
        owner: null,
        zone: 'a',
        peers: { [a]: { id: 'a' }, [backend.address]: { weight: null } },
      },
      api: { peers: { [b]: { weight: null, drain: true } } },
      ghost: null,
    },
  };
  assert.deepEqual((await admin.write('PATCH', all, patch)).changed, ['api', 'web']);
  assert.deepEqual((await read(admin)).document.upstreams, {
    web: { zone: 'a', peers: { [a]: { id: 'a' }, [backend.address]: {} } },
    api: { peers: { [b]: { drain: true } } },
  });

  const removal = { upstreams: { api: null, web: { peers: { [a]: null, [b]: null } } } };
  assert.deepEqual((await admin.write('PATCH', all, removal)).changed, ['api', 'web']);
  assert.deepEqual((await read(admin)).document.upstreams, {
    web: { zone: 'a', peers: { [backend.address]: {} } },
  });
  await admin.write('PATCH', all, { upstreams: { web: { peers: null } } });
  assert.deepEqual(await stored('web'), { zone: 'a', peers: {} });
});

test('PUT, PATCH and DELETE of one upstream leave the others alone', async () => {
  const before = await stored('web');
  await admin.write('PUT', `${all}/api`, { owner: 'x', peers: { [a]: {}, [b]: {} } });
  await admin.write('PUT', `${all}/api`, { peers: { [a]: { weight: 3 } } });
  assert.deepEqual(await stored('api'), { peers: { [a]: { weight: 3 } } });
  await admin.write('PATCH', `${all}/api`, { sticky: 's', peers: { [a]: null, [b]: {} } });
  assert.deepEqual(await stored('api'), { sticky: 's', peers: { [b]: {} } });
  await admin.write('PATCH', `${all}/api`, { peers: {} });
  assert.deepEqual(JSON.parse(await admin.get(`${all}/api`)), { sticky: 's', peers: { [b]: {} } });
  assert.deepEqual((await admin.write('DELETE', `${all}/api`)).changed, ['api']);
  assert.equal(await stored('api'), undefined);
  assert.deepEqual(await stored('web'), before);
  await assertServing(open);
});

test('names may be escaped in the path', async () => {
  await admin.write('PUT', `${all}/my%2dapi_1.0`, { peers: {} });
  assert.deepEqual(await stored('my-api_1.0'), { peers: {} });
});

test('PATCH takes both types, with parameters and in any case', async () => {
  for (const [method, type] of [
    ['PATCH', 'application/json'],
    ['PATCH', 'Application/Merge-Patch+JSON; charset=utf-8'],
    ['PUT', 'APPLICATION/JSON ;charset=utf-8'],
  ] as const) {
    await admin.write(method, web, { peers: { [a]: {} } }, { 'content-type': type });
  }
});

test('a write that changes nothing does not move the version', async () => {
  const { document, etag } = await read(admin);
  for (const [method, path, body] of [
    ['PUT', all, document],
    ['PATCH', all, document],
    ['PATCH', all, {}],
    ['PATCH', all, { upstreams: {} }],
    ['PATCH', all, { upstreams: { ghost: null, web: { zone: null, peers: { [a]: null } } } }],
    ['PUT', web, document.upstreams.web],
    ['PATCH', web, { owner: 'test', peers: { [backend.address]: { weight: 2.0 } } }],
    ['PATCH', web, {}],
  ] as const) {
    const written = await admin.write(method, path, body);
    assert.deepEqual([written.changed, written.etag], [[], etag], `${method} ${path}`);
  }
  assert.deepEqual(await read(admin), { document, etag });
});

test('If-None-Match answers 304 until the table moves', async () => {
  const { etag } = await read(admin);
  for (const path of [all, web]) {
    for (const tag of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
      const answer = await admin.send('GET', path, undefined, { 'if-none-match': tag });
      assert.deepEqual([answer.status, answer.body, answer.headers.etag], [304, '', etag], tag);
    }
  }
  await admin.write('PUT', `${all}/other`, { peers: {} });
  for (const path of [all, web]) {
    const answer = await admin.send('GET', path, undefined, { 'if-none-match': etag });
    assert.equal(answer.status, 200);
    assert.equal(answer.headers.etag, (await read(admin)).etag);
  }
  const { etag: now } = await read(admin);
  const ghost = await admin.send('GET', `${all}/ghost`, undefined, { 'if-none-match': now });
  assert.equal(ghost.status, 404);
});

test('If-Match lets the write through while it matches, strongly', async () => {
  for (const [method, path, body] of [
    ['PUT', all, { upstreams: { web: { peers: { [a]: {} } } } }],
    ['PATCH', all, { upstreams: { web: { owner: 'x' } } }],
    ['PUT', web, { peers: { [b]: {} } }],
    ['PATCH', web, { peers: { [a]: {} } }],
    ['DELETE', web, undefined],
  ] as const) {
    await serve(open);
    const { etag } = await read(admin);
    const instance = etag.slice(1, 17);
    const version = Number(/\.(\d+)/.exec(etag)?.[1]);
    for (const tag of [
      `"${instance}.${version - 1}"`,
      `"${instance}.${version + 1}"`,
      `"0${instance.slice(1)}x.${version}"`,
      `W/${etag}`,
      '"*"',
      '',
    ]) {
      const refused = await assertRefused(
        open,
        () => admin.send(method, path, body, { 'if-match': tag }),
        { status: 412, detail: new RegExp(instance) },
      );
      assert.equal(refused.headers.etag, etag);
    }
    await admin.write(method, path, body, { 'if-match': `W/"x.1", ${etag}` });
  }
  await admin.write('PUT', web, { peers: {} }, { 'if-match': '*' });
});

test('a list of ETags may hold commas, empty members and any byte of a tag', async () => {
  for (const before of ['', ', ,\t', '"a,b",', 'W/"",', '"!#~\xff" , ', '"W/",']) {
    const { etag } = await read(admin);
    const list = `${before}${etag}, W/${etag}, `;
    await admin.write('PATCH', web, { peers: { [a]: {} } }, { 'if-match': list });
    await serve(open);
  }
});

test('400: a condition that is no list of ETags, after a good one too', async () => {
  const { etag } = await read(admin);
  for (const list of [
    `${etag} garbage`,
    `${etag}, garbage`,
    `${etag}, *`,
    `*, ${etag}`,
    `${etag}${etag}`,
    `${etag} ${etag}`,
    `${etag}; x`,
    `${etag}, "open`,
    `w/${etag}`,
    `W/ ${etag}`,
    `/${etag}`,
    `${etag}, "a b"`,
    `${etag}, \xff`,
    etag.slice(1, -1),
  ]) {
    for (const [method, body, header] of [
      ['PATCH', { owner: 'x' }, 'if-match'],
      ['GET', undefined, 'if-none-match'],
    ] as const) {
      const send = () => admin.send(method, web, body, { [header]: list });
      await assertRefused(open, send, {
        status: 400,
        detail: new RegExp(`${header}.*: expected `, 'i'),
      });
    }
  }
});

test('404: unknown resources and upstreams', async () => {
  for (const path of [
    '/v1',
    '/v1/',
    '/v1/upstreams/',
    '/v1/upstream',
    '/v1/upstreams/a/b',
    '/v2',
  ]) {
    for (const method of ['GET', 'PUT', 'DELETE']) {
      await assertRefused(open, () => admin.send(method, path), { status: 404 });
    }
  }
  for (const name of ['ghost', 'a%20b', 'a%2Fb']) {
    for (const [method, body] of [['GET'], ['DELETE'], ['PATCH', {}]] as const) {
      await assertRefused(open, () => admin.send(method, `${all}/${name}`, body), { status: 404 });
    }
  }
});

test('405: with what is allowed', async () => {
  for (const [path, allow, methods] of [
    [all, 'GET, HEAD, PATCH, PUT', ['POST', 'DELETE', 'OPTIONS', 'PROPFIND', 'MKCOL']],
    [web, 'DELETE, GET, HEAD, PATCH, PUT', ['POST', 'OPTIONS']],
    ['/v1/status', 'GET, HEAD', ['POST', 'PUT', 'PATCH', 'DELETE']],
  ] as const) {
    for (const method of methods) {
      const answer = await assertRefused(open, () => admin.send(method, path), { status: 405 });
      assert.equal(answer.headers.allow, allow);
    }
  }
});

test('HEAD answers as GET without the body', async () => {
  for (const path of [all, web, '/v1/status', '/ghost']) {
    const head = await admin.send('HEAD', path);
    const get = await admin.send('GET', path);
    assert.deepEqual([head.status, head.body], [get.status, '']);
    for (const name of ['etag', 'content-type', 'cache-control']) {
      assert.equal(head.headers[name], get.headers[name], `${path} ${name}`);
    }
    if (get.status === 404) assertProblem(get);
  }
});

test('the status tells what is live', async () => {
  await admin.write('PUT', `${all}/api`, {
    balance: 'random',
    fail_timeout: 2.5,
    peers: { [a]: { weight: 0 }, [b]: { drain: true, id: 'b', slow_start: 0.5 } },
  });
  const { version, etag } = await admin.write('PATCH', web, { zone: 'z' });
  const status = JSON.parse(await admin.get('/v1/status'));
  assert.equal(`"${status.instance}.${status.version}"`, etag);
  assert.equal(status.source, 'admin');
  assert.ok(Math.abs(Date.parse(status.updated_at) - Date.now()) < 60_000, status.updated_at);
  assert.equal(status.capacity, 16 * 1024 * 1024);
  assert.ok(status.free_space > 0 && status.free_space < status.capacity);
  const counts = { requests: 0, failures: 0, active: 0 };
  assert.deepEqual(status.upstreams.api, {
    balance: 'random',
    fail_timeout: 2.5,
    version: version - 1,
    peers: {
      [a]: { weight: 0, state: 'down', ...counts },
      [b]: { weight: 1, drain: true, id: 'b', slow_start: 0.5, state: 'drain', ...counts },
    },
  });
  const { peers, ...settings } = status.upstreams.web;
  assert.deepEqual(settings, { owner: 'test', zone: 'z', balance: 'round_robin', version });
  assert.equal(peers[backend.address].state, 'up');
});
