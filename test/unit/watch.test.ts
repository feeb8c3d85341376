import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Consistency } from '../../agent/config/config.ts';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { repeatBlockingQuery } from '../../agent/consul/blocking-query.ts';
import { ConsulError } from '../../agent/consul/error.ts';
import { ownConnection } from '../../agent/consul/wait.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { until } from '../stack/process.ts';
import { cutOff, error, FakeConsul, ok, type Reply } from './fake-consul.ts';

interface Watched {
  fake: FakeConsul;
  /** The answers that were taken. */
  answers: unknown[][];
  errors: ConsulError[];
}

interface Options {
  script: Reply[];
  consistency?: Consistency;
  env?: NodeJS.ProcessEnv;
}

/** Watches a fake Consul until the test ends. */
async function watch(
  t: TestContext,
  { script, consistency = 'default', env }: Options,
): Promise<Watched> {
  const fake = await FakeConsul.start(script);
  const config = resolveConfig({ service: ['web'], consul: fake.address }, env ?? {}, {});
  const client = createConsulClient(config.consul);
  const abort = new AbortController();
  const watched: Watched = { fake, answers: [], errors: [] };
  let ended = false;
  const done = repeatBlockingQuery<unknown[]>({
    async ask(question, signal) {
      const query = { service: 'web', filter: undefined, consistency, ...question };
      const { index, entries } = await client.health(query, signal);
      return { index, content: entries };
    },
    answered(entries) {
      const changed = JSON.stringify(entries) !== JSON.stringify(watched.answers.at(-1));
      watched.answers.push(entries);
      return changed;
    },
    failed: (failure) => watched.errors.push(failure),
    wait: client.waits,
    signal: abort.signal,
  });
  done.finally(() => {
    ended = true;
  });
  t.after(async () => {
    // Whatever was answered, it goes on.
    const endedByItself = ended;
    abort.abort();
    await done;
    client.close();
    await fake.stop();
    assert.equal(endedByItself, false, 'the loop has ended');
  });
  return watched;
}

/** Waits until the watch holds its nth query. */
async function held(watched: Watched, n: number): Promise<void> {
  await until(`${n} queries`, () => watched.fake.requests.length >= n);
  assert.equal(watched.fake.requests.length, n);
}

/** Asserts how long each query may be held, in ms, but for its jitter. */
function assertWaits({ fake: { waits } }: Watched, expected: (number | undefined)[]): void {
  assert.equal(waits.length, expected.length);
  for (const [i, wait] of waits.entries()) {
    const ms = expected[i];
    if (wait === undefined || ms === undefined) assert.equal(wait, ms);
    else assert(Math.abs(wait - ms) <= ms / 10, `wait ${wait} of query ${i}`);
  }
}

test('the first query answers at once, the next block on the index of the last', async (t) => {
  const watched = await watch(t, { script: [ok(7, ['a']), ok('18446744073709551615', ['b'])] });
  await held(watched, 3);
  assert.deepEqual(watched.fake.indexes, [undefined, '7', '18446744073709551615']);
  assert.deepEqual(watched.answers, [['a'], ['b']]);
  assertWaits(watched, [undefined, 25_000, 25_000]);
});

test('an index that goes back is dropped, and the content fetched at once', async (t) => {
  const script = [ok(100, ['a']), ok(50, ['x']), ok(50, ['b'])];
  const watched = await watch(t, { script });
  await held(watched, 4);
  assert.deepEqual(watched.fake.indexes, [undefined, '100', undefined, '50']);
  // The answer that only showed the other index is not announced.
  assert.deepEqual(watched.answers, [['a'], ['b']]);
});

test('what an answer sets off goes out before the next query', async () => {
  const order: string[] = [];
  const abort = new AbortController();
  async function setOff(): Promise<void> {
    // As many turns as a push takes until it is written.
    for (let i = 0; i < 100; i += 1) await Promise.resolve();
    process.nextTick(() => order.push('push'));
  }
  await repeatBlockingQuery({
    async ask() {
      order.push('query');
      if (order.length > 1) abort.abort();
      return { index: { value: 1n, address: 'one' }, content: [] };
    },
    answered() {
      if (order.length === 1) setOff();
      return true;
    },
    failed: assert.fail,
    wait: ownConnection().now,
    signal: abort.signal,
  });
  assert.deepEqual(order, ['query', 'push', 'query']);
});

test('an index of 0 is 1', async (t) => {
  const watched = await watch(t, { script: [ok(0, [])] });
  await held(watched, 2);
  assert.deepEqual(watched.fake.indexes, [undefined, '1']);
});

test('an endpoint that answers at once is not asked in a tight loop', async (t) => {
  const script = Array.from({ length: 1000 }, () => ok(5, ['a']));
  const watched = await watch(t, { script });
  await until('some answers', () => watched.answers.length > 5);
  await new Promise((resolve) => setTimeout(resolve, 1000));
  const { length } = watched.fake.requests;
  assert(length < 40, `${length} requests in a second`);
  await until('one more', () => watched.answers.length > length);
});

test('an error gives no index and no peers, and what happened meanwhile is fetched', async (t) => {
  const script = [ok(100, ['a']), error(500, 'No cluster leader'), ok(101, ['b'])];
  const watched = await watch(t, { script });
  await held(watched, 4);
  assert.deepEqual(watched.fake.indexes, [undefined, '100', undefined, '101']);
  const consistent = watched.fake.requests.map(({ url }) => url.searchParams.has('consistent'));
  assert.deepEqual(consistent, [false, false, true, false]);
  assert.deepEqual(watched.answers, [['a'], ['b']]);
  assert.equal(
    watched.errors[0]?.message,
    `Consul at ${watched.fake.address}: 500 No cluster leader`,
  );
});

test('after an error the first waits are short, for an index above all that follow', async (t) => {
  const answers = Array.from({ length: 8 }, (_, i) => ok(101 + i, ['b']));
  const script = [ok(100, ['a']), error(500, 'No cluster leader'), ...answers];
  const watched = await watch(t, { script });
  await held(watched, 11);
  const growing = [1000, 2000, 4000, 8000, 16_000, 25_000, 25_000, 25_000];
  assertWaits(watched, [undefined, 25_000, undefined, ...growing]);
});

const unusable: [string, Reply, RegExp][] = [
  ['a body that is cut off', cutOff(9), /: the answer was cut off$/],
  ['a refusal for its rate', error(429, 'too many'), /: 429 too many$/],
  ['a body that is not a list', ok(9, { a: 1 }), /: the answer is not a JSON list$/],
  [
    'a page of a proxy',
    (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>hi'),
    /: the answer is not a JSON list$/,
  ],
  [
    'JSON that is none',
    (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('[{'),
    /: the answer is not a JSON list$/,
  ],
  [
    'an endpoint without an index',
    (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('[]'),
    /: no X-Consul-Index, this cannot be watched$/,
  ],
  [
    'an answer that was filtered',
    ok(9, [], { 'x-consul-results-filtered-by-acls': 'true' }),
    /filtered by ACLs\)$/,
  ],
];

for (const [what, reply, message] of unusable) {
  test(`changes nothing, and is soon asked for again: ${what}`, async (t) => {
    const watched = await watch(t, { script: [ok(8, ['a']), reply, ok(10, ['b'])] });
    await held(watched, 4);
    assert.deepEqual(watched.answers, [['a'], ['b']]);
    assert.equal(watched.errors.length, 1);
    assert.match(watched.errors[0]?.message ?? '', message);
  });
}

test('a wrong request is said loudly, and not repeated at once', async (t) => {
  const text = 'Failed to create boolean expression evaluator: 1:5: syntax error';
  for (const reply of [error(400, 'Invalid wait'), error(500, text)]) {
    const watched = await watch(t, { script: [ok(8, ['a']), reply, ok(9, ['b'])] });
    await until('the error', () => watched.errors.length === 1);
    assert.equal(watched.errors[0]?.code, 'consul/invalid');
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.deepEqual(watched.answers, [['a']]);
  }
});

test('403 reads the token file again', async (t) => {
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const file = join(folder, 'token');
  writeFileSync(file, 'old\n');
  const script: Reply[] = [
    ok(8, ['a']),
    (response) => {
      writeFileSync(file, 'new\n');
      error(403, 'ACL not found')(response);
    },
    ok(9, ['b']),
  ];
  const watched = await watch(t, { script, env: { CONSUL_HTTP_TOKEN_FILE: file } });
  await held(watched, 4);
  assert.deepEqual(
    watched.fake.requests.map(({ token }) => token),
    ['old', 'old', 'new', 'new'],
  );
});

test('a stale answer without a leader is asked for again from the leader', async (t) => {
  for (const header of [{ 'x-consul-knownleader': 'false' }, { 'x-consul-lastcontact': '20704' }]) {
    const script = [ok(50, ['old'], header), ok(70, ['new']), ok(60, ['new'])];
    const watched = await watch(t, { script, consistency: 'stale' });
    await held(watched, 4);
    assert.deepEqual(watched.answers, [['new'], ['new']]);
    const stale = watched.fake.requests.map(({ url }) => url.searchParams.has('stale'));
    assert.deepEqual(stale, [true, false, true, true]);
    // The leader's index is not used for a follower.
    assert.deepEqual(watched.fake.indexes, [undefined, undefined, undefined, '60']);
  }
});

test('when the leader does not answer, a stale answer without one changes nothing', async (t) => {
  const noLeader = { 'x-consul-knownleader': 'false' };
  const script = [
    ok(50, ['a']),
    ok(51, [], noLeader),
    error(500, 'No cluster leader'),
    ok(52, ['b']),
  ];
  const watched = await watch(t, { script, consistency: 'stale' });
  await held(watched, 5);
  assert.deepEqual(watched.answers, [['a'], ['b']]);
});

test('the namespace is sent, which the consul package leaves out', async (t) => {
  const watched = await watch(t, { script: [], env: { CONSUL_NAMESPACE: 'team a' } });
  await held(watched, 1);
  assert.equal(watched.fake.requests[0]?.url.searchParams.get('ns'), 'team a');
});

/** An answer of the streaming backend, as Consul 1.10 and newer give to a blocking query. */
function streamed(index: number, entries: unknown[]): Reply {
  return ok(index, entries, {
    'x-consul-knownleader': 'false',
    'x-consul-lastcontact': '0',
    'x-consul-query-backend': 'streaming',
  });
}

test('a streamed answer is no stale one: one request for one change', async (t) => {
  const first = ok(1, ['a'], {
    'x-consul-knownleader': 'true',
    'x-consul-query-backend': 'blocking-query',
  });
  const script = [first, streamed(2, ['b']), streamed(3, ['c']), streamed(4, ['d'])];
  const watched = await watch(t, { script, consistency: 'stale' });
  await held(watched, 5);
  assert.deepEqual(watched.fake.indexes, [undefined, '1', '2', '3', '4']);
  assert.deepEqual(watched.answers, [['a'], ['b'], ['c'], ['d']]);
  assert.ok(watched.fake.requests.every(({ url }) => url.searchParams.has('stale')));
});

test('one broken server of two is not asked in a hurry, nor the leader for it', async (t) => {
  const broken = Array.from({ length: 400 }, (_, i) =>
    i % 2 === 0 ? ok(i + 1, [i]) : error(500, 'rpc error'),
  );
  const watched = await watch(t, { script: broken });
  await new Promise((resolve) => setTimeout(resolve, 3000));
  const count = watched.fake.requests.length;
  // Without a memory of its failures: some 60. With back-off: each second one is longer.
  assert.ok(count >= 6 && count <= 30, `${count} requests`);
  const consistent = watched.fake.requests.filter(({ url }) => url.searchParams.has('consistent'));
  assert.ok(consistent.length <= watched.errors.length);
});

for (const status of [429, 503]) {
  test(`${status}: Consul is left alone as long as it says, and its leader is not asked`, async (t) => {
    const busy = error(status, 'rate limit exceeded', {
      'retry-after': '1',
      'content-type': 'application/json',
    });
    const began = performance.now();
    const watched = await watch(t, { script: [ok(7, ['a']), busy, ok(8, ['b'])] });
    await held(watched, 4);
    assert.ok(performance.now() - began >= 1000);
    assert.ok(!watched.fake.requests.some(({ url }) => url.searchParams.has('consistent')));
    const [{ message, status: seen } = {}] = watched.errors;
    assert.deepEqual(
      [seen, message],
      [status, `Consul at ${watched.fake.address}: ${status} rate limit exceeded`],
    );
  });
}

test('a Consul that has too much to do after an outage may show the past all the same', async (t) => {
  const script = [ok(7, ['a']), error(500, 'x'), error(429, 'too many'), ok(8, ['b'])];
  const watched = await watch(t, { script });
  await held(watched, 5);
  const consistent = watched.fake.requests.map(({ url }) => url.searchParams.has('consistent'));
  assert.deepEqual(consistent, [false, false, true, true, false]);
});

test('an error whose body is JSON is said as it is', async (t) => {
  const json = error(500, '{"error":"no leader"}', { 'content-type': 'application/json' });
  const watched = await watch(t, { script: [json] });
  await until('an error', () => watched.errors.length > 0);
  assert.match(watched.errors[0]?.message ?? '', /: 500 \{"error":"no leader"\}$/);
});

test('an index that Consul could not read back is none, and is not sent', async (t) => {
  const script = Array.from({ length: 50 }, () => ok('99999999999999999999', ['a']));
  const watched = await watch(t, { script });
  await new Promise((resolve) => setTimeout(resolve, 2000));
  assert.ok(watched.fake.indexes.every((index) => index === undefined));
  assert.match(watched.errors[0]?.message ?? '', /X-Consul-Index 99999999999999999999 is no index/);
  assert.ok(watched.fake.requests.length >= 2 && watched.fake.requests.length <= 20);
});

test('an error of ours leaves the loop, and is not laid to Consul', async () => {
  const failures: string[] = [];
  const abort = new AbortController();
  const asked = [
    new ConsulError('consul/failed', 'no answer'),
    new TypeError('x is not a function'),
  ];
  const loop = repeatBlockingQuery({
    ask: async () => {
      throw asked.shift() ?? abort.abort();
    },
    answered: () => true,
    failed: ({ message }) => failures.push(message),
    wait: ownConnection(1000).now,
    signal: abort.signal,
  });
  await assert.rejects(loop, new TypeError('x is not a function'));
  assert.deepEqual(failures, ['no answer']);
});

test('so does one that is thrown where the answer is used', async () => {
  const abort = new AbortController();
  let asked = 0;
  const loop = repeatBlockingQuery({
    ask: async () => {
      asked += 1;
      if (asked > 1) abort.abort();
      return { index: { value: 1n, address: 'here' }, content: 'a' };
    },
    answered() {
      throw new TypeError('x is not a function');
    },
    failed: assert.fail,
    wait: ownConnection(1000).now,
    signal: abort.signal,
  });
  await assert.rejects(loop, new TypeError('x is not a function'));
});

test('a wrong request is repeated after half a minute, or a minute at most', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  syncBuiltinESMExports();
  const abort = new AbortController();
  t.after(() => {
    abort.abort();
    t.mock.timers.reset();
    syncBuiltinESMExports();
  });
  let asked = 0;
  repeatBlockingQuery({
    async ask() {
      asked += 1;
      throw new ConsulError('consul/invalid', '400 Invalid wait');
    },
    answered: () => assert.fail(),
    failed() {},
    wait: ownConnection(1000).now,
    signal: abort.signal,
  });
  async function pass(ms: number) {
    await new Promise(setImmediate);
    t.mock.timers.tick(ms);
    await new Promise(setImmediate);
  }
  await pass(29_999);
  assert.equal(asked, 1);
  await pass(30_001);
  assert.equal(asked, 2);
});
