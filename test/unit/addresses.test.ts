// Proves how several addresses of Consul are used: in turn, the first again when
// it is well, and never with the index that another one gave.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { type ConsulClient, createConsulClient } from '../../agent/consul/api.ts';
import { repeatBlockingQuery } from '../../agent/consul/blocking-query.ts';
import type { ConsulError } from '../../agent/consul/error.ts';
import { ownConnection } from '../../agent/consul/wait.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { cutOff, error, FakeConsul, ok, type Reply } from './fake-consul.ts';

const query = { service: 'web', filter: undefined, consistency: 'stale' as const };
const { signal } = new AbortController();

interface Setup {
  client: ConsulClient;
  /** What was told of the address that is used. */
  told: string[];
}

function connect(t: TestContext, address: string[]): Setup {
  const told: string[] = [];
  const { consul } = resolveConfig({ service: ['web'] }, {}, { consul: { address } });
  const client = createConsulClient(consul, (name, why) => told.push(`${name} ${why ?? 'again'}`));
  t.after(client.close);
  return { client, told };
}

async function fake(t: TestContext, ...script: Reply[]): Promise<FakeConsul> {
  const consul = await FakeConsul.start(script);
  t.after(() => consul.stop());
  return consul;
}

async function contents(client: ConsulClient, times: number): Promise<unknown[]> {
  const got: unknown[] = [];
  for (let i = 0; i < times; i += 1) {
    const answer = await client.health(query, signal).catch(({ code }) => ({ entries: [code] }));
    got.push(...answer.entries);
  }
  return got;
}

const failing: [what: string, reply: Reply, code: string][] = [
  ['is busy', error(429, 'rate limit exceeded'), 'consul/busy'],
  ['closes the connection', (response) => response.destroy(), 'consul/closed'],
];

for (const [what, reply, code] of failing) {
  test(`the next address is asked when the first ${what}`, async (t) => {
    const first = await fake(t, reply);
    const second = await fake(t, ok(7, ['b']), ok(7, ['b']));
    const { client, told } = connect(t, [first.address, second.address]);
    assert.deepEqual(await contents(client, 3), [code, 'b', 'b']);
    assert.equal(first.requests.length, 1);
    assert.equal(told.length, 1);
    assert.ok(told[0]?.startsWith(`Consul at ${second.address} Consul at ${first.address}: `));
    assert.equal(client.name, `Consul at ${second.address}`);
  });
}

const noConsul: Reply = (response) => {
  response.writeHead(200, { 'content-type': 'text/html' }).end('hi');
};

for (const [what, reply, code] of [
  ['has a fault', error(500, 'No cluster leader'), 'consul/failed'],
  ['is no Consul', noConsul, 'consul/unusable'],
] as const) {
  test(`another address is used once it answers what the first, which ${what}, does not`, async (t) => {
    const first = await fake(t, reply);
    const second = await fake(t, error(500, 'x'));
    const third = await fake(t, ok(7, ['c']), ok(7, ['c']), ok(7, ['c']));
    const { client, told } = connect(t, [first.address, second.address, third.address]);
    assert.deepEqual(await contents(client, 1), [code]);
    await until('another is used', () => client.name === `Consul at ${third.address}`);
    assert.equal(second.requests.length, 1);
    assert.deepEqual(await contents(client, 2), ['c', 'c']);
    assert.equal(told.length, 1);
    assert.ok(told[0]?.startsWith(`Consul at ${third.address} Consul at ${first.address}: `));
  });
}

test('one request that fails everywhere moves none of the others', async (t) => {
  const turns = Array.from(
    { length: 20 },
    (): Reply => (response) => {
      const isBad = response.req.url?.includes('/bad?') ?? false;
      (isBad ? error(500, 'x') : ok(7, ['a']))(response);
    },
  );
  const both = [await fake(t, ...turns), await fake(t, ...turns)];
  const { client, told } = connect(
    t,
    both.map(({ address }) => address),
  );
  for (let i = 0; i < 5; i += 1) {
    const bad = client.health({ ...query, service: 'bad' }, signal);
    await assert.rejects(bad, { code: 'consul/failed' });
    await until('the other was asked', () => (both[1]?.requests.length ?? 0) > i);
    assert.deepEqual(await contents(client, 1), ['a']);
  }
  assert.deepEqual(told, []);
  assert.ok(both[1]?.requests.every(({ url }) => url.pathname.endsWith('/bad')));
});

test('an address where nothing listens is passed over; behind the last comes the first', async (t) => {
  const none = [await freePort(), await freePort()].map((port) => `http://127.0.0.1:${port}`);
  const third = await fake(t, ok(7, ['c']), error(429, 'x'));
  const { client, told } = connect(t, [...none, third.address]);
  const gone = 'consul/unreachable';
  assert.deepEqual(await contents(client, 6), [gone, gone, 'c', 'consul/busy', gone, gone]);
  assert.equal(told.length, 1);
});

for (const [what, reply] of [
  ['a token that is refused', error(403, 'ACL not found')],
  ['a wrong request', error(400, 'Invalid filter')],
] as const) {
  test(`another address would be no better: ${what}`, async (t) => {
    const first = await fake(t, reply, ok(7, ['a']));
    const second = await fake(t);
    const { client, told } = connect(t, [first.address, second.address]);
    await contents(client, 2);
    assert.deepEqual([first.requests.length, second.requests.length, told], [2, 0, []]);
  });
}

test('with one address nothing is told, and it is asked again', async (t) => {
  const only = await fake(t, error(500, 'x'), ok(7, ['a']));
  const { client, told } = connect(t, [only.address]);
  assert.deepEqual(await contents(client, 2), ['consul/failed', 'a']);
  assert.deepEqual(told, []);
});

test('the first is used again when a request of its own has shown that it is well', async (t) => {
  let time = 0;
  t.mock.method(performance, 'now', () => time);
  let answerProbe = () => {};
  const slow: Reply = (response) => {
    answerProbe = () => ok(3, ['a'])(response);
  };
  const first = await fake(t, error(429, 'x'), error(429, 'x'), slow, ok(3, ['a']));
  const second = await fake(t, ...Array.from({ length: 20 }, () => ok(7, ['b'])));
  const { client, told } = connect(t, [first.address, second.address]);
  await contents(client, 2);
  time = 9_999;
  assert.deepEqual(await contents(client, 2), ['b', 'b']);
  assert.equal(first.requests.length, 1);

  time = 10_001;
  await contents(client, 1);
  await until('it is asked, and is not well', () => first.requests.length === 2);
  assert.ok(first.requests[1]?.url.searchParams.has('consistent'));
  await contents(client, 2);
  assert.equal(first.requests.length, 2);

  time = 25_000;
  // Nobody waits for its answer, and it is not asked twice.
  assert.deepEqual(await contents(client, 3), ['b', 'b', 'b']);
  await until('it is asked again', () => first.requests.length === 3);
  answerProbe();
  await until('it is told', () => told.length === 2);
  assert.equal(told[1], `Consul at ${first.address} again`);
  assert.deepEqual(await contents(client, 1), ['a']);
});

test('a first that fails again soon after is tried again ever more rarely', async (t) => {
  let time = 0;
  t.mock.method(performance, 'now', () => time);
  const turns = Array.from({ length: 20 }, (_, i) => (i % 2 === 0 ? error(429, 'x') : ok(3, [])));
  const first = await fake(t, ...turns);
  const second = await fake(t, ...Array.from({ length: 5000 }, () => ok(7, ['b'])));
  const { client } = connect(t, [first.address, second.address]);
  const at: number[] = [];
  for (; time < 200_000; time += 1000) {
    const before = first.requests.length;
    await contents(client, 1);
    await new Promise((resolve) => setTimeout(resolve, 2));
    if (first.requests.length > before && before % 2 === 0) at.push(time / 1000);
  }
  // Each time it was well for a moment, and was asked for that.
  const gaps = at.slice(1).map((one, i) => one - (at[i] ?? 0));
  assert.ok(
    gaps.length >= 3 && gaps.every((gap, i) => i === 0 || gap > 1.5 * (gaps[i - 1] ?? 0)),
    gaps.join(),
  );
});

for (const [what, fault] of [
  ['a 429', error(429, 'x')],
  ['a cut', cutOff(901)],
] as const) {
  test(`a watch takes no index to another address behind ${what}: there it asks at once, and the leader`, async (t) => {
    let fail = () => {};
    const held: Reply = (response) => {
      fail = () => fault(response);
    };
    const first = await fake(t, ok(900, ['a']), held);
    const second = await fake(t, ok(12, ['b']), ok(13, ['c']));
    const { client } = connect(t, [first.address, second.address]);
    const abort = new AbortController();
    const answers: unknown[] = [];
    const errors: ConsulError[] = [];
    const done = repeatBlockingQuery({
      async ask(question, signal) {
        const { index, entries } = await client.health({ ...query, ...question }, signal);
        return { index, content: entries };
      },
      answered: (content) => answers.push(...content) > 0,
      failed: (error) => errors.push(error),
      wait: ownConnection().now,
      signal: abort.signal,
    });
    t.after(async () => {
      abort.abort();
      await done;
    });
    await until('it is held', () => first.requests.length === 2);
    fail();
    await until('it is held there', () => second.requests.length === 3);
    assert.deepEqual(second.indexes, [undefined, '12', '13']);
    const consistent = second.requests.map(({ url }) => url.searchParams.has('consistent'));
    assert.deepEqual(consistent, [true, false, false]);
    assert.deepEqual([answers, errors.length], [['a', 'b', 'c'], 1]);
  });
}

test('a watch that saw no fault moves too when its query has ended', async (t) => {
  const first = await fake(t, ok(900, ['a']), error(429, 'x'));
  const second = await fake(t, ok(12, ['b']));
  const { client } = connect(t, [first.address, second.address]);
  const { index } = await client.health(query, signal);
  assert(index !== undefined);
  await contents(client, 1);
  const block = { index, wait: 25_000 };
  const { entries } = await client.health({ ...query, block }, signal);
  assert.deepEqual([entries, second.indexes], [['b'], [undefined]]);
  assert.ok(second.requests[0]?.url.searchParams.has('consistent'));
});
