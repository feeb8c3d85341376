// A connection that is lost without a sign: nothing ever comes back.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { FakeConsul } from './fake-consul.ts';

test('a query that is never answered ends by its own deadline', async (t) => {
  const fake = await FakeConsul.start([]);
  const config = resolveConfig({ service: ['web'], consul: fake.address }, {}, {});
  const client = createConsulClient(config.consul);
  t.after(async () => {
    client.close();
    await fake.stop();
  });
  const query = { service: 'web', filter: undefined, consistency: 'default' } as const;
  const block = { index: { value: 1n, address: client.name }, wait: 1000 };
  const began = Date.now();
  await assert.rejects(
    client.health({ ...query, block }, new AbortController().signal),
    /: no answer in time$/,
  );
  const took = Date.now() - began;
  // The wait, the sixteenth that Consul may add, and a margin.
  assert(took >= 11_000 && took < 15_000, `${took} ms`);
});
