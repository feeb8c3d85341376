// Proves that reads never wait behind blocking queries, that all together stay
// within max_connections, and that many may end with one signal.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { until } from '../stack/process.ts';
import { FakeConsul, ok, type Reply } from './fake-consul.ts';

const held: Reply = () => {};

test('blocking queries leave two connections of the budget to reads', async (t) => {
  const fake = await FakeConsul.start([held, held, ok(1, []), ok(1, []), held, held]);
  const file = { consul: { address: fake.address, max_connections: 4 } };
  const client = createConsulClient(resolveConfig({ service: ['web'] }, {}, file).consul);
  const abort = new AbortController();
  t.after(async () => {
    abort.abort();
    client.close();
    await fake.stop();
  });
  const query = { service: 'web', filter: undefined, consistency: 'default' as const };
  const watch = () =>
    client
      .health(
        { ...query, block: { index: { value: 1n, address: client.name }, wait: 60_000 } },
        abort.signal,
      )
      .catch(() => undefined);
  const read = () => client.health({ ...query, isExtra: true }, abort.signal);
  for (let i = 0; i < 3; i += 1) watch();
  await until('two are held', () => fake.requests.length === 2);
  await Promise.all([read(), read()]);
  assert.deepEqual(fake.indexes, ['1', '1', undefined, undefined]);

  for (let i = 0; i < 3; i += 1) read().catch(() => undefined);
  await until('two reads are held', () => fake.requests.length === 6);
  await sleep(100);
  assert.equal(fake.requests.length, 6);
});

test('many calls that end with one signal warn of nothing', async (t) => {
  const warnings: string[] = [];
  const warned = (warning: Error) => warnings.push(warning.message);
  process.on('warning', warned);
  t.after(() => process.off('warning', warned));
  const fake = await FakeConsul.start([]);
  const config = resolveConfig({ service: ['web'], consul: fake.address }, {}, {});
  const client = createConsulClient(config.consul);
  const abort = new AbortController();
  const calls = Array.from({ length: 30 }, () =>
    client
      .health({ service: 'web', filter: undefined, consistency: 'default' }, abort.signal)
      .catch(() => undefined),
  );
  await until('they are asked', () => fake.requests.length === 30);
  abort.abort();
  await Promise.all(calls);
  client.close();
  await fake.stop();
  await sleep(10);
  assert.deepEqual(warnings, []);
});
