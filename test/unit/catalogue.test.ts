// Proves what is taken of an answer of the catalogue, and what is none.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { error, FakeConsul, ok, type Reply } from './fake-consul.ts';

async function ask(t: TestContext, reply: Reply) {
  const fake = await FakeConsul.start([reply]);
  const { consul } = resolveConfig({ service: ['web'], consul: fake.address }, {}, {});
  const client = createConsulClient(consul);
  t.after(async () => {
    client.close();
    await fake.stop();
  });
  return client.catalogue({ consistency: 'stale' }, AbortSignal.timeout(5000));
}

test('the services with their tags, as far as the token may see them', async (t) => {
  const services = { web: ['a', 'b'], api: [], odd: null };
  const filtered = { 'x-consul-results-filtered-by-acls': 'true' };
  const { index, catalogue } = await ask(t, ok(7, services, filtered));
  assert.equal(index?.value, 7n);
  assert.deepEqual(
    [...catalogue],
    [
      ['web', new Set(['a', 'b'])],
      ['api', new Set()],
      ['odd', new Set()],
    ],
  );
});

for (const [what, reply, message] of [
  ['a list', ok(7, []), /the answer is not a JSON object$/],
  ['nothing', ok(7, null), /the answer is not a JSON object$/],
  ['no index', ok('x', {}), /no X-Consul-Index/],
  ['an error', error(403, 'ACL not found'), /403 ACL not found$/],
] as const) {
  test(`${what} is no catalogue`, async (t) => {
    await assert.rejects(ask(t, reply), message);
  });
}
