// Proves, against each generation of Consul as it is played, that a change costs
// one request, that nothing flaps, that the leader is left alone, and that a
// query which is cut while it is silent is no outage. Time is faked: hours pass.
import assert from 'node:assert/strict';
import { Writable } from 'node:stream';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { repeatBlockingQuery } from '../../agent/consul/blocking-query.ts';
import { readInstances } from '../../agent/source/health/instance.ts';
import { boundedLog } from '../../agent/telemetry/bounded.ts';
import { createOutage } from '../../agent/telemetry/outage.ts';
import { type Generation, generations, PlayedConsul } from './played-consul.ts';

interface Watched {
  consul: PlayedConsul;
  /** The ports of each answer that was another than the one before. */
  seen: string[];
  log: { level: number; msg: string; code?: string }[];
  /** Lets time pass, in ms. */
  pass(ms: number): Promise<void>;
}

const realTimeout = setTimeout;

function turn(ms = 0): Promise<void> {
  return new Promise((resolve) => {
    realTimeout(resolve, ms);
  });
}

/** Watches a service of a played Consul, in a time of its own, until the test ends. */
async function watch(t: TestContext, generation: Generation, wait?: number): Promise<Watched> {
  const consul = await PlayedConsul.start(generation);
  const file = { consul: { address: consul.address, ...(wait === undefined ? {} : { wait }) } };
  const config = resolveConfig({ service: ['web'] }, {}, file).consul;
  let time = 0;
  t.mock.timers.enable({ apis: ['setTimeout'] });
  t.mock.method(performance, 'now', () => time);
  const client = createConsulClient(config);
  const seen: string[] = [];
  const log: Watched['log'] = [];
  const lines = new Writable({
    write(line, _, done) {
      log.push(JSON.parse(String(line)));
      done();
    },
  });
  const outage = createOutage(boundedLog(pino({ level: 'debug' }, lines)));
  const abort = new AbortController();
  const query = { service: 'web', filter: undefined, consistency: 'stale' as const };
  let isOver = false;
  const done = repeatBlockingQuery({
    async ask(question, signal) {
      const { index, entries } = await client.health({ ...query, ...question }, signal);
      return { index, content: entries };
    },
    answered(entries) {
      outage.answered('web');
      const ports = readInstances(entries).instances.map(({ port }) => port);
      if (ports.join() === seen.at(-1)) return false;
      seen.push(ports.join());
      return true;
    },
    failed: (error) => outage.failed('web', error),
    wait: client.waits,
    signal: abort.signal,
  }).finally(() => {
    isOver = true;
  });

  /** Until the next query is held; or, while the watch waits by itself, a moment. */
  async function settle(): Promise<void> {
    for (let i = 0; i < 10 && consul.held === 0; i += 1) await turn(1);
    assert.equal(isOver, false, 'the watch has ended');
  }

  t.after(async () => {
    abort.abort();
    await done;
    client.close();
    await consul.stop();
  });
  for (let i = 0; i < 500 && consul.held === 0; i += 1) await turn(2);
  return {
    consul,
    seen,
    log,
    async pass(ms) {
      const step = 250;
      for (let passed = 0; passed < ms; passed += step) {
        time += step;
        t.mock.timers.tick(step);
        await settle();
      }
    },
  };
}

/** Neither of a server that may be behind, nor asked of another than the nearest. */
function isOfLeader(url: URL): boolean {
  return !url.searchParams.has('stale');
}

for (const generation of generations) {
  test(`${generation.name}: one request for one change, and nothing flaps`, async (t) => {
    const { consul, seen, log, pass } = await watch(t, generation);
    const states = [[8080], [8080, 8090], [8090], [8090, 8100, 8110], [8100]];
    for (const ports of states.slice(1)) {
      await pass(2000);
      consul.set(ports);
    }
    await pass(2000);
    assert.deepEqual(
      seen,
      states.map((ports) => ports.join()),
    );
    // The first, which does not block, and the one that is held now.
    assert.equal(consul.requests.length, states.length - 1 + 2);
    assert.equal(consul.held, 1);
    assert.deepEqual(consul.requests.filter(isOfLeader), []);
    assert.deepEqual(log, []);
  });

  test(`${generation.name}: in a quiet hour the leader is not asked, nor the log written`, async (t) => {
    const { consul, seen, log, pass } = await watch(t, generation);
    await pass(3_600_000);
    const { length } = consul.requests;
    // One in 25 s, with its jitter and what Consul adds.
    assert.ok(length > 3600 / 30 && length < 3600 / 22, `${length} requests`);
    assert.deepEqual(consul.requests.filter(isOfLeader), []);
    assert.deepEqual(seen, ['8080']);
    assert.deepEqual(log, []);
  });
}

const [, , cutting] = generations as [Generation, Generation, Generation];

test('a query that is cut at 30 s for ten minutes is no outage, and a change is seen', async (t) => {
  const { consul, seen, log, pass } = await watch(t, cutting, 60);
  await pass(600_000);
  const { length } = consul.requests;
  assert.ok(length > 600 / 30 && length < 600 / 8, `${length} requests`);
  assert.deepEqual(consul.requests.filter(isOfLeader), []);
  consul.set([9000]);
  await pass(1000);
  assert.equal(consul.requests.length, length + 1);
  assert.deepEqual(seen, ['8080', '9000']);
  assert.deepEqual(
    log.filter(({ level }) => level > 20),
    [],
  );
});

test('a Consul that has ended behind a proxy that cuts what is silent is an outage', async (t) => {
  const { consul, log, pass } = await watch(t, { ...cutting, cutAfter: 10_500 }, 60);
  await pass(60_000);
  assert.equal(log.length, 0);
  consul.isDead = true;
  await pass(90_000);
  assert.equal(log.length > 0 && log[0]?.level, 50);
  assert.match(log[0]?.msg ?? '', /: the connection was closed without an answer: its peers stay/);
});

test('a proxy that cuts each query after 50 ms makes no tight loop', async (t) => {
  const { consul, log, pass } = await watch(t, { ...cutting, cutAfter: 50 });
  await pass(60_000);
  assert.ok(consul.requests.length < 150, `${consul.requests.length} requests in a minute`);
  assert.equal(log[0]?.level, 50);
  assert.match(log[0]?.msg ?? '', /: the connection was closed without an answer: its peers stay/);
});
