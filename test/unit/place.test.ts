// Namespaces, partitions and imported services are of newer or Enterprise Consul:
// it is shown what is asked for, in the words of its API reference, not what it answers.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { parseConfig } from '../../agent/config/file.ts';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { openSource } from '../../agent/source/source.ts';
import { FakeConsul, ok, type Reply } from './fake-consul.ts';

async function ask(t: TestContext, upstream: string, replies: Reply[]) {
  const fake = await FakeConsul.start(replies);
  t.after(() => fake.stop());
  const yaml = `consul: { datacenter: dc1, namespace: usual }\nupstreams: { web: { ${upstream} } }`;
  const { consul, upstreams } = resolveConfig(
    { consul: fake.address },
    {},
    parseConfig(yaml, 'reloadless.yml'),
  );
  const client = createConsulClient(consul);
  t.after(client.close);
  const { source: config, settings } = upstreams.get('web') ?? {};
  assert(config !== undefined && settings !== undefined);
  const log = { debug() {}, info() {}, warn() {}, error() {} };
  const source = openSource({
    ...{ upstream: 'web', config, client, consistency: 'default', wait: client.waits, log },
    settings: () => settings,
    remembered: () => ({}),
  });
  t.after(() => source.stop());
  return { fake, source };
}

const signal = new AbortController().signal;
const asked = ({ requests }: FakeConsul) =>
  requests.map(
    ({ url }) => `${url.pathname} ${[...url.searchParams].map((pair) => pair.join('=')).join(' ')}`,
  );

/** As `/v1/internal/acl/authorize` answers who may read all. */
const allowed = ok(1, [{ Allow: true }, { Allow: true }]);

test('health is asked for in the place of the upstream, and confirmed there', async (t) => {
  const upstream = 'datacenter: dc2, namespace: team, partition: east, peer: cloud';
  const { fake, source } = await ask(t, upstream, [ok(7, []), allowed, ok(7, [])]);
  await source.read(signal);
  await source.confirm(signal);
  const place = 'dc=dc2 ns=team partition=east peer=cloud';
  assert.deepEqual(asked(fake), [
    `/v1/health/service/web ${place}`,
    `/v1/internal/acl/authorize ${place}`,
    `/v1/health/service/web consistent=1 ${place}`,
  ]);
});

test('so is KV; what an upstream does not say is as configured', async (t) => {
  const { fake, source } = await ask(t, 'source: kv, partition: east', [
    ok(7, []),
    ok(1, [{ Allow: true }]),
    ok(7, []),
  ]);
  await source.read(signal);
  await source.confirm(signal);
  const place = 'dc=dc1 ns=usual partition=east';
  assert.deepEqual(asked(fake), [
    `/v1/kv/upstreams/web/ recurse=1 ${place}`,
    `/v1/internal/acl/authorize ${place}`,
    `/v1/kv/upstreams/web/ consistent=1 recurse=1 ${place}`,
  ]);
});

test('the health that KV is joined with is asked for where KV is, unless it says otherwise', async (t) => {
  const replies = [ok(7, []), ok(7, []), ok(7, []), ok(7, [])];
  const upstream = 'source: kv, partition: east, health: { service: api, namespace: team }';
  const { fake, source } = await ask(t, upstream, replies);
  await source.read(signal);
  assert.deepEqual(asked(fake), [
    '/v1/kv/upstreams/web/ recurse=1 dc=dc1 ns=usual partition=east',
    '/v1/health/service/api dc=dc1 ns=team partition=east',
  ]);
});
