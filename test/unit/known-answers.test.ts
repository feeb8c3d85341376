// Proves that an answer which says what the last one said is not read again, and
// that one that may mean something else now is.
import assert from 'node:assert/strict';
import { after, type TestContext, test } from 'node:test';
import { pino } from 'pino';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import type { HealthConfig } from '../../agent/source/health/config.ts';
import { openHealth } from '../../agent/source/health/health.ts';
import { certify } from '../stack/certificate.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { until } from '../stack/process.ts';
import { FakeHttp2 } from './fake-http2.ts';

const { folder, remove } = temporaryFolder();
after(remove);
const certificate = certify(folder);

function entry(id: string, host: string): unknown {
  return { Node: { Node: 'n', Address: host }, Service: { ID: id, Port: 80 }, Checks: [] };
}

/** Follows a service of a fake Consul until the test ends. */
async function start(t: TestContext, observed: () => void = () => {}) {
  const server = await FakeHttp2.start(certificate);
  const file = { consul: { address: server.address, tls: { ca_file: certificate.cert } } };
  const config = resolveConfig({ service: ['web'] }, {}, file);
  const client = createConsulClient(config.consul);
  const said: string[] = [];
  const source = openHealth(
    {
      upstream: 'web',
      config: config.upstreams.get('web')?.source as HealthConfig,
      client,
      consistency: 'stale',
      wait: client.waits,
      log: pino({ level: 'silent' }),
      settings: () => ({}),
      remembered: () => ({}),
    },
    async () => ['10.0.0.9'],
  );
  t.after(async () => {
    source.stop();
    client.close();
    await server.stop();
  });
  source.follow({
    observed({ peers }) {
      said.push(Object.keys(peers).join());
      observed();
      return true;
    },
    unchanged: () => said.push('unchanged'),
    failed: ({ code }) => said.push(code),
  });
  let index = 0;
  async function answer(...entries: unknown[]) {
    await until('the query', () => server.held.length > 0);
    const count = said.length;
    index += 1;
    server.held[0]?.answer(index, entries);
    await until('it is taken', () => said.length > count);
  }
  return { server, source, said, answer };
}

test('the same answer again is not read, another one is', async (t) => {
  const { said, answer } = await start(t);
  await answer(entry('a', '10.0.0.1'));
  await answer(entry('a', '10.0.0.1'));
  await answer(entry('a', '10.0.0.2'));
  await answer(entry('a', '10.0.0.1'));
  await answer(entry('a', '10.0.0.1'));
  const [one, other] = ['10.0.0.1:80', '10.0.0.2:80'];
  assert.deepEqual(said, [one, 'unchanged', other, one, 'unchanged']);
});

test('one that could not be used is read again', async (t) => {
  const { said, answer } = await start(t);
  await answer(entry('a', ''));
  await until('it is asked again', () => said.length === 1);
  await answer(entry('a', ''));
  assert.deepEqual(said, ['consul/no-instance', 'consul/no-instance']);
});

test('one with a host name is read again, since its addresses may be others', async (t) => {
  const { said, answer } = await start(t);
  await answer(entry('a', '10.0.0.1'), entry('b', 'web.test'));
  await until('the name is looked up', () => said.length === 2);
  await answer(entry('a', '10.0.0.1'), entry('b', 'web.test'));
  assert.deepEqual(said, ['10.0.0.1:80', '10.0.0.1:80,10.0.0.9:80', '10.0.0.1:80,10.0.0.9:80']);
});

test('what was confirmed meanwhile to be another makes the same answer news', async (t) => {
  const { server, source, said, answer } = await start(t);
  await answer(entry('a', '10.0.0.1'));
  await until('it is held', () => server.held.length === 1);
  const confirmed = source.confirm(AbortSignal.timeout(10_000));
  await until('the rights are asked for', () => server.held.length === 2);
  server.held[1]?.answer(1, [{ Allow: true }, { Allow: true }]);
  await until('it is read', () => server.held.length === 2);
  server.held[1]?.answer(2, [entry('a', '10.0.0.2')]);
  assert.deepEqual(Object.keys((await confirmed).peers), ['10.0.0.2:80']);
  // Was asked before the confirmation.
  await answer(entry('a', '10.0.0.1'));
  assert.deepEqual(said, ['10.0.0.1:80', '10.0.0.1:80']);
});
