// Proves how it is decided how watches are carried, that it is said in one line,
// and that services for which there are too few connections are said to be left.
import assert from 'node:assert/strict';
import { after, type TestContext, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { type ConsulClient, createConsulClient } from '../../agent/consul/api.ts';
import { certify } from '../stack/certificate.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { until } from '../stack/process.ts';
import { FakeConsul, ok } from './fake-consul.ts';
import { FakeHttp2 } from './fake-http2.ts';

const { folder, remove } = temporaryFolder();
after(remove);
const certificate = certify(folder);

interface Setup {
  client: ConsulClient;
  /** What was said of the plan. */
  said: string[];
}

function connect(t: TestContext, address: string | string[], max_connections: number): Setup {
  const said: string[] = [];
  const file = { consul: { address, max_connections, tls: { ca_file: certificate.cert } } };
  const { consul } = resolveConfig({ service: ['web'] }, {}, file);
  const client = createConsulClient(consul, undefined, (line, isWhole) => {
    said.push(`${isWhole ? '' : 'ERROR '}${line}`);
  });
  t.after(client.close);
  return { client, said };
}

/** A watch, for as long as `end` is not called. */
function watch(t: TestContext) {
  const abort = new AbortController();
  const end = () => abort.abort();
  t.after(end);
  const query = { service: 'web', filter: undefined, consistency: 'stale', isWatch: true } as const;
  return {
    end,
    /** Asks once, and is held when there is a block. @returns what became of it */
    async ask(client: ConsulClient, isHeld = false): Promise<string> {
      const block = { index: { value: 7n, address: client.name }, wait: 25_000 };
      const asked = { ...query, ...(isHeld ? { block } : {}) };
      const answered = client.health(asked, abort.signal);
      return answered.then(String, ({ code }) => code ?? 'ended');
    },
  };
}

const many = (t: TestContext, count: number) => Array.from({ length: count }, () => watch(t));
const answers = (count: number) => Array.from({ length: count }, () => ok(7, []));

test('without TLS each has a connection of its own', async (t) => {
  const fake = await FakeConsul.start(answers(2));
  t.after(() => fake.stop());
  const { client, said } = connect(t, fake.address, 6);
  await Promise.all(many(t, 2).map((one) => one.ask(client)));
  await until('it is said', () => said.length > 0);
  assert.deepEqual(said, ['watches: 2 services, one connection each']);
});

test('it is said again when there are many more or fewer, not for each that comes or goes', async (t) => {
  const fake = await FakeHttp2.start(certificate, { onAsked: (asked) => asked.answer(7, []) });
  t.after(() => fake.stop());
  const { client, said } = connect(t, fake.address, 6);
  const ask = (count: number) => {
    const watches = many(t, count);
    return Promise.all(watches.map((one) => one.ask(client))).then(() => watches);
  };
  await ask(1);
  await until('it is said', () => said.length === 1);
  await ask(1);
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  const more = await ask(8);
  await until('it is said again', () => said.length === 2);
  for (const one of more) one.end();
  await until('it is said once more', () => said.length === 3);
  const counts = ['1 service', '10 services', '2 services'];
  assert.deepEqual(
    said,
    counts.map((count) => `watches: ${count} over HTTP/2 on 1 connection`),
  );
});

test('over TLS to a server without HTTP/2, doorbells carry what is too much for the connections', async (t) => {
  const fake = await FakeConsul.start(answers(100), { certificate });
  t.after(() => fake.stop());
  const { client, said } = connect(t, fake.address, 6);
  const watches = many(t, 10);
  for (let round = 0; round < 3; round += 1) {
    const outcomes = await Promise.all(watches.map((one) => one.ask(client)));
    assert(outcomes.every((outcome) => !outcome.startsWith('consul/')));
  }
  await until('it is said', () => said.length > 0);
  assert.match(said.join(), /^watches: 10 services by doorbells: /);
});

test('a server that comes back with or without HTTP/2 is asked as it speaks', async (t) => {
  const first = await FakeHttp2.start(certificate, { onAsked: (asked) => asked.answer(7, []) });
  const { port } = first;
  const { client, said } = connect(t, first.address, 6);
  const watches = many(t, 10);
  const round = () => Promise.all(watches.map((one) => one.ask(client)));
  await round();
  await until('it is said', () => said.length === 1);
  await first.stop();

  const second = await FakeConsul.start(answers(100), { certificate, port });
  await until('it is asked', async () => !(await round()).join().includes('consul/'));
  await until('it is said', () => said.length === 2);
  await second.stop();
  assert.ok((await round()).includes('consul/unreachable'));

  const third = await FakeHttp2.start(certificate, {
    port,
    onAsked: (asked) => asked.answer(7, []),
  });
  t.after(() => third.stop());
  await until('all are answered', async () => {
    const outcomes = await round();
    return outcomes.every((outcome) => !outcome.startsWith('consul/'));
  });
  await until('it is said', () => said.length === 3);
  assert.deepEqual(
    said.map((line) => line.split(':').slice(0, 2).join(':')),
    [
      'watches: 10 services over HTTP/2 on 1 connection',
      'watches: 10 services by doorbells',
      'watches: 10 services over HTTP/2 on 1 connection',
    ],
  );
});
