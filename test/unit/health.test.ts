import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { Writable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { ownConnection } from '../../agent/consul/wait.ts';
import type { HealthConfig } from '../../agent/source/health/config.ts';
import type { Lookup } from '../../agent/source/health/dns.ts';
import { openHealth } from '../../agent/source/health/health.ts';
import type { Source } from '../../agent/source/source.ts';
import type { Peers } from '../../agent/state/document.ts';
import { until } from '../stack/process.ts';
import { FakeConsul, ok, type Reply } from './fake-consul.ts';

interface Options {
  entries: unknown[];
  lookup?: Lookup;
  remembered?: Peers;
  /** Called for each answer that was taken. */
  observed?: () => void;
}

interface Followed {
  source: Source;
  fake: FakeConsul;
  /** Consul answers the last query that it holds. */
  reply: (entries: unknown[]) => void;
  /** The same, and waits for the next query. */
  answer: (entries: unknown[]) => Promise<void>;
  /** The addresses of each answer that was taken. */
  taken: string[];
  failures: string[];
  log: { level: number; msg: string; stack?: string }[];
}

function entry(ID: string, Address: string) {
  const Service = { ID, Address, Port: 80 };
  return { Node: { Node: 'n1', Address: '10.0.0.1' }, Service, Checks: [] };
}

/** Follows a fake Consul that answers once, and then when it is told to, until the test ends. */
async function start(t: TestContext, options: Options): Promise<Followed> {
  let held: ServerResponse | undefined;
  const hold: Reply = (response) => {
    held = response;
  };
  const fake = await FakeConsul.start([ok(7, options.entries), ...Array(9).fill(hold)]);
  const config = resolveConfig({ service: ['web'], consul: fake.address }, {}, {});
  const client = createConsulClient(config.consul);
  const lines = new Writable({
    write(line, _, done) {
      followed.log.push(JSON.parse(String(line)));
      done();
    },
  });
  const followed: Pick<Followed, 'taken' | 'failures' | 'log'> = {
    taken: [],
    failures: [],
    log: [],
  };
  const source = openHealth(
    {
      upstream: 'web',
      config: config.upstreams.get('web')?.source as HealthConfig,
      client,
      consistency: 'default',
      wait: ownConnection().now,
      log: pino(lines),
      settings: () => ({}),
      remembered: () => options.remembered ?? {},
    },
    options.lookup ?? (async () => ['10.0.0.9']),
  );
  source.follow({
    observed({ peers }) {
      options.observed?.();
      followed.taken.push(Object.keys(peers).join());
      return true;
    },
    failed: ({ message }) => followed.failures.push(message),
  });
  t.after(async () => {
    source.stop();
    client.close();
    await fake.stop();
  });
  let index = 7;
  function reply(entries: unknown[]) {
    const response = held as ServerResponse;
    held = undefined;
    index += 1;
    ok(index, entries)(response);
  }
  async function answer(entries: unknown[]) {
    await until('the query', () => held !== undefined);
    reply(entries);
    await until('the next query', () => held !== undefined);
  }
  return Object.assign(followed, { source, fake, reply, answer });
}

/** A lookup of names that have no answer until the test gives one. */
function later() {
  let end = (_: string[] | Error) => {};
  let isAsked = false;
  const lookup: Lookup = () =>
    new Promise((resolve, reject) => {
      isAsked = true;
      end = (result) => (result instanceof Error ? reject(result) : resolve(result));
    });
  return { lookup, end: (result: string[] | Error) => end(result), isAsked: () => isAsked };
}

test('a name that is being looked up holds up nobody, and comes when it is found', async (t) => {
  const { lookup, end } = later();
  const entries = [entry('a', '10.0.0.5'), entry('b', 'slow.test')];
  const it = await start(t, { entries, lookup });
  await until('the first', () => it.taken.length === 1);
  await it.answer([entry('c', '10.0.0.6'), entry('b', 'slow.test')]);
  assert.equal(it.taken.length, 2);
  end(['10.0.0.9']);
  await until('the third', () => it.taken.length === 3);
  assert.deepEqual(it.taken, ['10.0.0.5:80', '10.0.0.6:80', '10.0.0.9:80,10.0.0.6:80']);
});

test('when all instances are by name nothing changes until their look-up has ended', async (t) => {
  const { lookup, end } = later();
  const it = await start(t, { entries: [entry('a', 'slow.test')], lookup });
  await it.answer([entry('b', 'slow.test')]);
  assert.deepEqual([it.taken, it.failures], [[], []]);
  end(new Error('no answer'));
  await until('the failure', () => it.failures.length > 0);
  assert.equal(it.failures[0], 'none of 1 instances can be used: slow.test cannot be resolved');
  assert.deepEqual(it.taken, []);
});

test('a name keeps the addresses that it had before the start', async (t) => {
  const { lookup, end } = later();
  const entries = [entry('a', '10.0.0.5'), entry('b', 'slow.test')];
  const remembered = { '10.0.0.9:80': { id: 'b' }, '10.0.0.8:80': { id: 'x' } };
  const it = await start(t, { entries, lookup, remembered });
  await until('the first', () => it.taken.length === 1);
  end(new Error('no answer'));
  await until('a line', () => it.log.length === 1);
  assert.equal(it.log[0]?.msg, 'web: keeps 1 addresses: slow.test: no answer');
  await it.answer(entries);
  assert.deepEqual(it.taken, ['10.0.0.5:80,10.0.0.9:80', '10.0.0.5:80,10.0.0.9:80']);
});

test('a name that was found keeps its addresses over an answer without instances', async (t) => {
  const remembered: Peers = {};
  const entries = [entry('a', '10.0.0.5'), entry('b', 'web.test')];
  const found = Promise.resolve(['10.0.0.9']);
  let lookups = 0;
  const lookup: Lookup = () => {
    lookups += 1;
    return lookups === 1 ? found : new Promise(() => {});
  };
  const it = await start(t, { entries, lookup, remembered });
  await until('both', () => it.taken.at(-1) === '10.0.0.5:80,10.0.0.9:80');
  Object.assign(remembered, { '10.0.0.9:80': { id: 'b' } });
  await it.answer([]);
  await it.answer(entries);
  assert.equal(it.taken.at(-1), '10.0.0.5:80,10.0.0.9:80');
});

test('a fault of our own is that service’s: said once with its stack, not laid to Consul, and tried again', async (t) => {
  let faults = 0;
  const it = await start(t, {
    entries: [entry('a', '10.0.0.5')],
    observed() {
      faults += 1;
      if (faults < 3) throw new TypeError('x is not a function');
    },
  });
  await until('it is taken', () => it.taken.length === 1);
  assert.equal(faults, 3);
  assert.deepEqual(it.failures, []);
  assert.deepEqual(
    it.log.map(({ msg }) => msg),
    ['web: a fault of the agent: x is not a function: its peers stay', 'web: handled again'],
  );
  assert.equal(it.log[0]?.level, 50);
  assert.match(it.log[0]?.stack ?? '', /^TypeError: x is not a function\n +at .*health\.test\.ts/);
});

test('it is confirmed by a consistent read, that has the rights, with all names looked up', async (t) => {
  const { lookup, end, isAsked } = later();
  const it = await start(t, { entries: [entry('a', '10.0.0.5')], lookup });
  await until('it is followed', () => it.fake.requests.length === 2);
  const confirmed = it.source.confirm(AbortSignal.timeout(10_000));
  await until('the rights are asked for', () => it.fake.requests.length === 3);
  await it.answer([{ Allow: true }, { Allow: true }]);
  const [, , rights, read] = it.fake.requests;
  assert.equal(rights?.url.pathname, '/v1/internal/acl/authorize');
  assert(read?.url.searchParams.has('consistent'));
  it.reply([entry('b', '10.0.0.6'), entry('c', 'slow.test')]);
  await until('the look-up', isAsked);
  end(['10.0.0.9']);
  const { instances, peers } = await confirmed;
  assert.deepEqual([instances, Object.keys(peers)], [2, ['10.0.0.6:80', '10.0.0.9:80']]);
  // It is the state that takes it.
  assert.deepEqual(it.taken, ['10.0.0.5:80']);
});

test('many malformed instances are one short line', async (t) => {
  const bad = Array.from({ length: 1000 }, (_, i) => entry(`m-${i}`, 'x y'));
  const it = await start(t, { entries: [entry('a', '10.0.0.5'), ...bad] });
  await until('a line', () => it.log.length === 1);
  assert.match(it.log[0]?.msg ?? '', /^web: left out: m-0 on n1: .*; m-4 on n1: [^;]*; 995 more$/);
});
