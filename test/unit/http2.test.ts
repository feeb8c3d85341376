// Proves how many queries share few connections over HTTP/2, and what becomes of
// them when a connection, a stream or the server ends. The server is a fake one:
// the real one cannot be made to send GOAWAY, to reset a stream or to be silent.
import assert from 'node:assert/strict';
import { once, setMaxListeners } from 'node:events';
import { readFileSync } from 'node:fs';
import { constants } from 'node:http2';
import { after, type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { type ConsulClient, createConsulClient } from '../../agent/consul/api.ts';
import { repeatBlockingQuery } from '../../agent/consul/blocking-query.ts';
import type { ConsulError } from '../../agent/consul/error.ts';
import { ownConnection } from '../../agent/consul/wait.ts';
import { Cable } from '../stack/cable.ts';
import { certify } from '../stack/certificate.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { type Asked, FakeHttp2 } from './fake-http2.ts';

const { folder, remove } = temporaryFolder();
after(remove);
const certificate = certify(folder);
const { signal } = new AbortController();
const query = { service: 'web', filter: undefined, consistency: 'stale' } as const;

async function fake(t: TestContext, options: Parameters<typeof FakeHttp2.start>[1] = {}) {
  const server = await FakeHttp2.start(certificate, options);
  t.after(() => server.stop());
  return server;
}

function connect(t: TestContext, address: string | string[], more: object = {}): ConsulClient {
  const file = { consul: { address, tls: { ca_file: certificate.cert }, ...more } };
  const client = createConsulClient(resolveConfig({ service: ['web'] }, {}, file).consul);
  t.after(client.close);
  return client;
}

/** Answers what does not block, and holds the rest. */
const usual = (asked: Asked) => {
  if (!asked.url.searchParams.has('index')) asked.answer(7, [serviceOf(asked)]);
};

const serviceOf = ({ url }: Asked) => url.pathname.split('/').at(-1) ?? '';

interface Watched {
  /** What was answered, in order. */
  answers: unknown[];
  errors: ConsulError[];
}

/** Watches services `s0`, `s1` and so on until the test ends. */
function watch(t: TestContext, client: ConsulClient, count: number): Watched {
  const watched: Watched = { answers: [], errors: [] };
  const abort = new AbortController();
  const loops = Array.from({ length: count }, (_, i) => {
    const own = new AbortController();
    setMaxListeners(0, abort.signal);
    abort.signal.addEventListener('abort', () => own.abort());
    return repeatBlockingQuery<unknown[]>({
      async ask(question, signal) {
        const asked = { ...query, service: `s${i}`, ...question };
        const { index, entries } = await client.health(asked, signal);
        return { index, content: entries };
      },
      answered: (content) => watched.answers.push(...content) > 0,
      failed: (error) => watched.errors.push(error),
      wait: ownConnection().now,
      signal: own.signal,
    });
  });
  t.after(async () => {
    abort.abort();
    await Promise.all(loops);
  });
  return watched;
}

const indexOf = ({ url }: Asked) => url.searchParams.get('index');

test('many queries share few connections, a change of each is seen, and a read does not wait', async (t) => {
  const server = await fake(t, { streams: 10, onAsked: usual });
  const client = connect(t, server.address, { max_connections: 5 });
  const watched = watch(t, client, 40);
  await until('all are held', () => server.held.length === 40);
  assert.equal(server.sessions.size, 5);
  assert.equal(server.most, 8);
  const loads = [...server.sessions].map((one) => {
    return server.held.filter(({ session }) => session === one).length;
  });
  assert.deepEqual(loads, [8, 8, 8, 8, 8]);
  for (let i = 0; i < 10; i += 1) await client.health({ ...query, isExtra: true }, signal);
  assert.equal(server.sessions.size, 5);

  for (const held of server.held) held.answer(8, [`${serviceOf(held)} changed`]);
  await until('they are held again', () => server.held.length === 40);
  assert.deepEqual(server.held.map(indexOf), Array(40).fill('8'));
  assert.equal(watched.answers.length, 80);
  assert.deepEqual(watched.errors, []);
});

test('what the server takes is never exceeded, and one service too many is said to be', async (t) => {
  const server = await fake(t, { streams: 10, onAsked: usual });
  const client = connect(t, server.address, { max_connections: 3 });
  const watched = watch(t, client, 30);
  await until('as many as fit are held', () => server.held.length === 24);
  await until('the others are refused', () => watched.errors.length === 6);
  assert.deepEqual([server.sessions.size, server.most], [3, 8]);
  const messages = new Set(watched.errors.map(({ code, message }) => `${code} ${message}`));
  const why = '24 services can be followed with consul.max_connections, not this one too';
  assert.deepEqual([...messages], [`consul/too-many Consul at ${server.address}: ${why}`]);
});

test('a connection that is cut wakes its own queries alone, with their index, spread', async (t) => {
  const server = await fake(t, { streams: 52, onAsked: usual });
  const client = connect(t, server.address);
  const watched = watch(t, client, 150);
  await until('all are held', () => server.held.length === 150);
  assert.equal(server.sessions.size, 3);
  const [victim] = server.sessions;
  const theirs = server.held.filter(({ session }) => session === victim).map(serviceOf);
  const before = server.asked.length;
  await sleep(1_100);
  const cut = performance.now();
  const times: number[] = [];
  server.onAsked = () => times.push(performance.now() - cut);
  victim?.destroy();
  await until('all are held', () => server.held.length === 150);
  const again = server.asked.slice(before);
  assert.deepEqual(again.map(serviceOf).sort(), theirs.sort());
  assert.deepEqual(again.map(indexOf), Array(50).fill('7'));
  const half = times.filter((time) => time > 50);
  assert.ok(half.length > 10, `they came after ${times.map(Math.round).join()} ms`);
  assert.deepEqual([watched.errors, watched.answers.length], [[], 150]);
  assert.equal(server.sessions.size, 3);
});

test('when all connections are cut, their queries are asked anew one after the other', async (t) => {
  const server = await fake(t, { streams: 52, onAsked: usual });
  const client = connect(t, server.address);
  const watched = watch(t, client, 150);
  await until('all are held', () => server.held.length === 150);
  await sleep(1_100);
  const cut = performance.now();
  let last = cut;
  server.onAsked = () => {
    last = performance.now();
  };
  for (const session of server.sessions) session.destroy();
  await until('all are held', () => server.held.length === 150);
  assert.ok(last - cut > 550, `all of them within ${last - cut} ms`);
  assert.deepEqual([watched.errors, watched.answers.length], [[], 150]);
});

test('of many watches that begin, so many read at once, and each in the end', async (t) => {
  const server = await fake(t);
  const client = connect(t, server.address);
  const watched = watch(t, client, 300);
  await until('the first', () => server.asked.length >= 100);
  await sleep(300);
  assert.equal(server.asked.length, 100);
  server.onAsked = usual;
  for (const asked of server.held) usual(asked);
  await until('all are held', () => server.held.length === 300);
  assert.deepEqual([watched.errors, watched.answers.length], [[], 300]);
});

test('what a server holds that does not answer any more is asked of the next', async (t) => {
  const first = await fake(t, { onAsked: usual });
  const second = await fake(t, { onAsked: usual });
  const cable = await Cable.start(first.port);
  t.after(() => cable.stop());
  const client = connect(t, [`https://127.0.0.1:${cable.port}`, second.address]);
  const watched = watch(t, client, 20);
  await until('all are held', () => first.held.length === 20);
  cable.deafen();
  await assert.rejects(client.health(query, signal), { code: 'consul/timeout' });
  // A ping shows it after 20 s.
  await until('all are held there', () => second.held.length === 20, 5);
  assert.deepEqual(watched.errors, []);
});

for (const status of [408, 502, 504]) {
  test(`a proxy that ends what is silent with ${status} is no outage, and teaches a shorter wait`, async (t) => {
    let time = 0;
    t.mock.method(performance, 'now', () => time);
    const server = await fake(t, { onAsked: usual });
    const client = connect(t, server.address);
    const watched = watch(t, client, 1);
    await until('it is held', () => server.held.length === 1);
    time = 20_000;
    server.held[0]?.answer(0, 'Gateway', status);
    await until('it is held again', () => server.held.length === 1);
    assert.deepEqual([server.held.map(indexOf), watched.errors], [['7'], []]);
    assert.equal(client.waits().most, 16_000);
    // What comes at once is an outage.
    server.held[0]?.answer(0, 'Gateway', status);
    await until('it is said', () => watched.errors.length === 1);
  });
}

test('a connection that is reset while requests are under way is found out at once', async (t) => {
  const server = new Worker(new URL('answering-http2.mjs', import.meta.url), {
    workerData: { cert: readFileSync(certificate.cert), key: readFileSync(certificate.key) },
    execArgv: [],
  });
  t.after(() => server.terminate());
  const [port] = (await once(server, 'message')) as [number];
  const cable = await Cable.start(port);
  t.after(() => cable.stop());
  // Node loses about one in three: docs/discoveries/consul-http2.md.
  for (let round = 0; round < 12; round += 1) {
    const client = connect(t, `https://127.0.0.1:${cable.port}`);
    let isOver = false;
    const block = { index: { value: 7n, address: client.name }, wait: 25_000 };
    const held = Array.from({ length: 150 }, () => {
      return client.health({ ...query, block }, signal).catch(() => {});
    });
    const asking = Array.from({ length: 90 }, async () => {
      while (!isOver) await client.health(query, signal).catch(() => {});
    });
    await sleep(200 + Math.random() * 50);
    const began = performance.now();
    cable.reset();
    await sleep(60);
    isOver = true;
    await Promise.all([...held, ...asking]);
    const took = performance.now() - began;
    assert.ok(took < 5_000, `${took} ms`);
    client.close();
  }
});

test('a read on a connection that is cut is sent again', async (t) => {
  const server = await fake(t, { onAsked: usual });
  const client = connect(t, server.address);
  await client.health(query, signal);
  await sleep(1_100);
  server.onAsked = ({ session }) => {
    server.onAsked = usual;
    session.destroy();
  };
  const { entries } = await client.health(query, signal);
  assert.deepEqual([entries, server.asked.length], [['web'], 3]);
});

test('a server that ends every connection at once is said to close it', async (t) => {
  const server = await fake(t, { onAsked: ({ session }) => session.destroy() });
  const client = connect(t, server.address);
  await assert.rejects(client.health(query, signal), {
    code: 'consul/closed',
    message: `Consul at ${server.address}: the connection was closed without an answer`,
  });
  assert.equal(server.asked.length, 1);
});

test('GOAWAY lets what is held end where it is, and takes the rest elsewhere', async (t) => {
  const server = await fake(t, { onAsked: usual });
  const client = connect(t, server.address);
  const watched = watch(t, client, 3);
  await until('all are held', () => server.held.length === 3);
  const [old] = server.sessions;
  old?.goaway(constants.NGHTTP2_NO_ERROR);
  await sleep(50);
  assert.equal(server.held.length, 3);
  await client.health(query, signal);
  assert.notEqual(server.asked.at(-1)?.session, old);
  for (const held of server.held) held.answer(8, ['changed']);
  await until('they are held again', () => server.held.length === 3);
  assert.ok(server.held.every(({ session }) => session !== old));
  assert.equal(server.sessions.size, 1);
  assert.deepEqual(watched.errors, []);
  assert.equal(watched.answers.filter((answer) => answer === 'changed').length, 3);
});

test('GOAWAY to requests that were not looked at sends them elsewhere', async (t) => {
  const server = await fake(t, { onAsked: usual });
  const client = connect(t, server.address);
  await client.health(query, signal);
  const [old] = server.sessions;
  server.onAsked = () => {
    server.onAsked = usual;
    old?.goaway(constants.NGHTTP2_NO_ERROR, 1);
  };
  const { entries } = await client.health(query, signal);
  assert.deepEqual(entries, ['web']);
  assert.notEqual(server.asked.at(-1)?.session, old);
});

for (const [what, code, again] of [
  ['refused', constants.NGHTTP2_REFUSED_STREAM, true],
  ['reset', constants.NGHTTP2_INTERNAL_ERROR, false],
] as const) {
  test(`a stream that is ${what} is ${again ? 'sent again' : 'an error'}, its neighbours stay`, async (t) => {
    const server = await fake(t, { onAsked: usual });
    const client = connect(t, server.address);
    const watched = watch(t, client, 5);
    await until('all are held', () => server.held.length === 5);
    server.onAsked = ({ stream }) => {
      server.onAsked = usual;
      stream.close(code);
    };
    const asked = client.health(query, signal);
    if (again) assert.deepEqual((await asked).entries, ['web']);
    else await assert.rejects(asked, { code: 'consul/closed' });
    assert.deepEqual([server.sessions.size, server.held.length, watched.errors], [1, 5, []]);
  });
}

for (const [what, end] of [
  ['stream', ({ stream }: Asked) => stream.destroy(new Error('cut'))],
  ['session', ({ session }: Asked) => session.destroy()],
  ['connection', (_: Asked, cable: Cable) => cable.stop()],
] as const) {
  test(`an answer that is cut off with its ${what} is an error`, async (t) => {
    const server = await fake(t, {
      onAsked(asked) {
        asked.stream.respond({ 'content-type': 'application/json', 'x-consul-index': '7' });
        asked.stream.write('[');
        setTimeout(() => end(asked, cable), 50);
      },
    });
    const cable = await Cable.start(server.port);
    t.after(() => cable.stop());
    const client = connect(t, `https://127.0.0.1:${cable.port}`);
    await assert.rejects(client.health(query, signal), { code: 'consul/cut-off' });
  });
}

test('a connection that has gone deaf is found out by a ping', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const server = await fake(t, { onAsked: usual });
  const cable = await Cable.start(server.port);
  t.after(() => cable.stop());
  const client = connect(t, `https://127.0.0.1:${cable.port}`);
  const watched = watch(t, client, 5);
  await until('all are held', () => server.held.length === 5);
  for (let i = 0; i < 3; i += 1) {
    t.mock.timers.tick(10_000);
    await sleep(400);
  }
  assert.equal(cable.opened, 1);
  cable.deafen();
  t.mock.timers.tick(10_000);
  t.mock.timers.tick(10_000);
  await until('all are held by another', () => cable.opened === 2 && server.held.length >= 5);
  await until('they are asked', () => server.asked.length >= 15);
  assert.deepEqual(watched.errors, []);
});

test('connections that are not needed any more are ended', async (t) => {
  t.mock.timers.enable({ apis: ['setInterval'] });
  const server = await fake(t, { streams: 10, onAsked: usual });
  const client = connect(t, server.address);
  const abort = new AbortController();
  const block = { index: { value: 7n, address: client.name }, wait: 25_000 };
  const held = Array.from({ length: 40 }, () => {
    return client.health({ ...query, block }, abort.signal).catch(() => {});
  });
  await until('all are held', () => server.held.length === 40);
  assert.equal(server.sessions.size, 5);
  abort.abort();
  await Promise.all(held);
  await until('none is held', () => server.held.length === 0);
  await until('one is left', async () => {
    t.mock.timers.tick(10_000);
    await sleep(20);
    return server.sessions.size === 1;
  });
});

for (const [status, code] of [
  [400, 'consul/invalid'],
  [403, 'consul/refused'],
  [404, 'consul/unusable'],
  [429, 'consul/busy'],
  [500, 'consul/failed'],
] as const) {
  test(`${status} is ${code}`, async (t) => {
    const server = await fake(t, { onAsked: (asked) => asked.answer(1, 'because', status) });
    const client = connect(t, server.address);
    const message = `Consul at ${server.address}: ${status} because`;
    await assert.rejects(client.health(query, signal), { code, status, message });
  });
}

test('a request says what it says over HTTP/1.1, under the path of its address', async (t) => {
  const server = await fake(t, { host: '::1', onAsked: usual });
  const address = `${server.address.replace('//', '//me:a%20b@')}/consul`;
  const tls = { ca_file: certificate.cert };
  const file = { consul: { address, tls, datacenter: 'dc2', namespace: 'team' } };
  const env = { CONSUL_HTTP_TOKEN: 'secret' };
  const client = createConsulClient(resolveConfig({ service: ['web'] }, env, file).consul);
  t.after(client.close);
  const block = { index: { value: 12n, address: client.name }, wait: 2_000 };
  const abort = new AbortController();
  const asked = client.health(
    { ...query, service: 'a b', filter: 'x == "+&"', block },
    abort.signal,
  );
  await until('it is asked', () => server.asked.length === 1);
  const [{ url, headers }] = server.asked as [Asked];
  assert.equal(url.pathname, '/consul/v1/health/service/a%20b');
  assert.deepEqual(Object.fromEntries(url.searchParams), {
    stale: '1',
    filter: 'x == "+&"',
    index: '12',
    wait: '2000ms',
    dc: 'dc2',
    ns: 'team',
  });
  assert.equal(headers['x-consul-token'], 'secret');
  assert.equal(headers.authorization, `Basic ${btoa('me:a b')}`);
  const why = new Error('it is enough');
  abort.abort(why);
  await assert.rejects(asked, why);
  await until('the stream has ended', () => server.held.length === 0);
});

test('a large answer comes whole', async (t) => {
  const large = Array.from({ length: 200_000 }, (_, i) => `instance ${i} of many`);
  const server = await fake(t, { onAsked: (asked) => asked.answer(7, large) });
  const client = connect(t, server.address);
  assert.deepEqual((await client.health(query, signal)).entries, large);
});

test('nobody there, and a certificate that is not trusted, are unreachable', async (t) => {
  const port = await freePort();
  await assert.rejects(connect(t, `https://127.0.0.1:${port}`).health(query, signal), {
    code: 'consul/unreachable',
    message: `Consul at https://127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}`,
  });
  const server = await fake(t);
  const stranger = certify(folder, 'stranger');
  const client = connect(t, server.address, { tls: { ca_file: stranger.cert } });
  await assert.rejects(client.health(query, signal), { code: 'consul/unreachable' });
  const trusting = connect(t, server.address, { tls: { verify: false } });
  server.onAsked = usual;
  await trusting.health(query, signal);
});

test('the next address is asked when the first has ended', async (t) => {
  const first = await fake(t, { onAsked: usual });
  const second = await fake(t, { onAsked: (asked) => asked.answer(9, ['second']) });
  const client = connect(t, [first.address, second.address]);
  await client.health(query, signal);
  await first.stop();
  await assert.rejects(client.health(query, signal), { code: 'consul/unreachable' });
  assert.deepEqual((await client.health(query, signal)).entries, ['second']);
  assert.equal(client.name, `Consul at ${second.address}`);
});
