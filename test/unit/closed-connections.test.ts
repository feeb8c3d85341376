// Proves what a connection that is closed without an answer is taken for.
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { until } from '../stack/process.ts';
import { error, FakeConsul, ok, type Reply } from './fake-consul.ts';

const query = { service: 'web', filter: undefined, consistency: 'default' } as const;
const { signal } = new AbortController();
const closed = 'the connection was closed without an answer';

function connect(t: TestContext, address: string) {
  const { consul } = resolveConfig({ service: ['web'], consul: address }, {}, {});
  const client = createConsulClient(consul);
  t.after(client.close);
  return client;
}

const destroyed: Reply = (response) => response.destroy();

test('a connection that Consul closed while it was idle is tried again without a word', async (t) => {
  const fake = await FakeConsul.start([ok(7, ['a']), destroyed, ok(8, ['b'])]);
  t.after(() => fake.stop());
  const client = connect(t, fake.address);
  await client.health(query, signal);
  const { entries } = await client.health(query, signal);
  assert.deepEqual([entries, fake.requests.length], [['b'], 3]);
});

test('one that is new is not, and one that has begun to answer neither', async (t) => {
  const begun: Reply = (response) => {
    response.writeHead(200, { 'content-length': '100' });
    response.write('[', () => response.destroy());
  };
  const fake = await FakeConsul.start([destroyed, ok(7, []), begun, error(500, 'x')]);
  t.after(() => fake.stop());
  const client = connect(t, fake.address);
  await assert.rejects(client.health(query, signal), {
    code: 'consul/closed',
    message: `Consul at ${fake.address}: ${closed}`,
  });
  await client.health(query, signal);
  await assert.rejects(client.health(query, signal), { code: 'consul/cut-off' });
  assert.equal(fake.requests.length, 3);
});

/** A server of one connection less than it is asked for, as Consul is at its limit. */
async function limited(t: TestContext, most: number) {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    socket.on('error', () => {});
    if (sockets.size >= most) socket.destroy();
    else sockets.add(socket);
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as { port: number };
  const end = () => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  t.after(end);
  return { address: `http://127.0.0.1:${port}`, sockets, end };
}

test('the limit of connections is guessed where one is refused while many are open', async (t) => {
  for (const [most, isGuessed] of [
    [40, true],
    [3, false],
  ] as const) {
    const { address, sockets } = await limited(t, most);
    const client = connect(t, address);
    const abort = new AbortController();
    const held = Array.from({ length: most }, () => {
      return client.health(query, abort.signal).catch(() => {});
    });
    await until('they are open', () => sockets.size === most);
    await assert.rejects(client.health(query, signal), (error: Error) => {
      const hint = ' (is http_max_conns_per_client reached?)';
      assert.equal(error.message, `Consul at ${address}: ${closed}${isGuessed ? hint : ''}`);
      return true;
    });
    abort.abort();
    await Promise.all(held);
  }
});

test('a Consul that ends is named as what it is, also with many connections', async (t) => {
  const { address, sockets, end } = await limited(t, 40);
  const client = connect(t, address);
  const messages: string[] = [];
  const held = Array.from({ length: 40 }, () => {
    return client.health(query, signal).catch(({ message }) => messages.push(message));
  });
  await until('they are open', () => sockets.size === 40);
  await new Promise((resolve) => setTimeout(resolve, 1100));
  end();
  await Promise.all(held);
  await client.health(query, signal).catch(({ message }) => messages.push(message));
  assert.deepEqual([...new Set(messages)].sort(), [
    `Consul at ${address}: connect ECONNREFUSED ${address.slice('http://'.length)}`,
    `Consul at ${address}: ${closed}`,
  ]);
});
