// A connection that is lost without a sign: nothing ever comes back.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { certify } from '../stack/certificate.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { FakeConsul } from './fake-consul.ts';
import { FakeHttp2 } from './fake-http2.ts';

test('a query that is never answered ends by its own deadline', {
  concurrency: true,
}, async (t) => {
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const certificate = certify(folder);
  const fakes = [await FakeConsul.start([]), await FakeHttp2.start(certificate)];
  t.after(() => Promise.all(fakes.map((fake) => fake.stop())));
  await Promise.all(
    fakes.map(({ address }) => {
      return t.test(new URL(address).protocol, (t) => ends(t, address, certificate.cert));
    }),
  );
});

async function ends(t: TestContext, address: string, ca_file: string): Promise<void> {
  const file = { consul: { address, tls: { ca_file } } };
  const client = createConsulClient(resolveConfig({ service: ['web'] }, {}, file).consul);
  t.after(client.close);
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
}
