// A 404 of Consul says that there is no such key; one of anything else says nothing.
// Over HTTP/1.1 and HTTP/2, from fakes: the real Consul has no 404 without an index.
import assert from 'node:assert/strict';
import { after, type TestContext, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { certify } from '../stack/certificate.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { error, FakeConsul } from './fake-consul.ts';
import { FakeHttp2 } from './fake-http2.ts';

const { folder, remove } = temporaryFolder();
after(remove);
const certificate = certify(folder);
const query = { key: 'a/ü b/', isPrefix: true, consistency: 'stale' } as const;

function connect(t: TestContext, address: string) {
  const file = { consul: { address, tls: { ca_file: certificate.cert } } };
  const client = createConsulClient(resolveConfig({ service: ['web'] }, {}, file).consul);
  t.after(client.close);
  return client;
}

test('over HTTP/1.1', async (t) => {
  const proxy = error(404, 'no such page', { 'x-consul-index': [] });
  const fake = await FakeConsul.start([error(404, ''), proxy]);
  t.after(() => fake.stop());
  const client = connect(t, fake.address);
  const { signal } = new AbortController();
  const { index, pairs } = await client.kv(query, signal);
  assert.deepEqual([index?.value, pairs], [1n, []]);
  await assert.rejects(client.kv(query, signal), {
    code: 'consul/unusable',
    message: /no X-Consul-Index/,
  });
  const { url } = fake.requests[0] ?? {};
  assert.equal(url?.pathname, '/v1/kv/a/%C3%BC%20b/');
  assert.equal(url?.searchParams.get('recurse'), '1');
});

test('over HTTP/2', async (t) => {
  const onAsked: NonNullable<Parameters<typeof FakeHttp2.start>[1]>['onAsked'] = (asked) => {
    asked.answer(7, undefined, 404);
  };
  const fake = await FakeHttp2.start(certificate, { onAsked });
  t.after(() => fake.stop());
  const client = connect(t, fake.address);
  const { signal } = new AbortController();
  const { index, pairs } = await client.kv(query, signal);
  assert.deepEqual([index?.value, pairs], [7n, []]);
  const health = client.health({ service: 'web', filter: undefined, consistency: 'stale' }, signal);
  await assert.rejects(health, { code: 'consul/unusable', status: 404 });
});
