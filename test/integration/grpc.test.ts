// Proves gRPC through the balancer: calls of every kind, each to a peer of the
// table, with their status, and streams that outlive their peer in the table.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';
import * as grpc from '@grpc/grpc-js';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { deadAddress, peersOf } from './backends.ts';
import { peerStatus, startOpenresty } from './openresty.ts';

const port = await freePort();
const { admin } = await startOpenresty({
  workers: 1,
  servers: `
    upstream grpc {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("grpc") }
        keepalive 64;
    }
    server {
        listen 127.0.0.1:${port} http2;
        location / {
            grpc_pass grpc://grpc;
            grpc_read_timeout 1h;
            grpc_send_timeout 1h;
        }
    }`,
});
const path = '/v1/upstreams/grpc';

const put = (...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', path, { max_fails: 0, peers: peersOf(...peers) });

const serialize = (text: string) => Buffer.from(text);
const deserialize = (bytes: Buffer) => bytes.toString();

/** Methods by name; which sides of them are streams. */
const kinds = { Unary: [false, false], Count: [false, true], Chat: [true, true] } as const;
const methods = Object.fromEntries(
  Object.entries(kinds).map(([name, [requestStream, responseStream]]) => [
    name,
    {
      path: `/test.Echo/${name}`,
      requestStream,
      responseStream,
      requestSerialize: serialize,
      requestDeserialize: deserialize,
      responseSerialize: serialize,
      responseDeserialize: deserialize,
    },
  ]),
);

/** A server that answers with its address. */
async function startServer(): Promise<{ address: string; calls: number }> {
  const server = new grpc.Server();
  const started = { address: '', calls: 0 };
  server.addService(methods as grpc.ServiceDefinition, {
    Unary: (call: { request: string }, done: grpc.sendUnaryData<string>) => {
      started.calls += 1;
      const details = `no ${call.request}`;
      if (call.request === 'missing') done({ code: grpc.status.NOT_FOUND, details });
      else done(null, `${started.address} ${call.request.length}`);
    },
    Count: (call: grpc.ServerWritableStream<string, string>) => {
      for (let i = 0; i < Number(call.request); i += 1) call.write(`${i}`);
      call.end();
    },
    Chat: (call: grpc.ServerDuplexStream<string, string>) => {
      call.on('data', (text) => call.write(`${started.address} ${text}`));
      call.on('end', () => call.end());
    },
  });
  const bound = await new Promise<number>((resolve, reject) => {
    const credentials = grpc.ServerCredentials.createInsecure();
    server.bindAsync('127.0.0.1:0', credentials, (error, at) =>
      error === null ? resolve(at) : reject(error),
    );
  });
  after(() => server.forceShutdown());
  started.address = `127.0.0.1:${bound}`;
  return started;
}

const client = new grpc.Client(`127.0.0.1:${port}`, grpc.credentials.createInsecure());
after(() => client.close());

function unary(text: string): Promise<string> {
  return new Promise((resolve, reject) => {
    client.makeUnaryRequest('/test.Echo/Unary', serialize, deserialize, text, (error, value) =>
      error === null ? resolve(String(value)) : reject(error),
    );
  });
}

const chat = () => client.makeBidiStreamRequest('/test.Echo/Chat', serialize, deserialize);

async function say(stream: ReturnType<typeof chat>, text: string): Promise<string> {
  const answer = once(stream, 'data');
  stream.write(text);
  return String((await answer)[0]);
}

const statusOf = (peer: { address: string }) => peerStatus(admin, peer, 'grpc');

test('unary calls take turns on the peers', async () => {
  const [a, b] = [await startServer(), await startServer()];
  await put(a.address, b.address);
  for (let i = 1; i <= 20; i += 1) assert.match(await unary('x'.repeat(i)), new RegExp(` ${i}$`));
  assert.deepEqual([a.calls, b.calls], [10, 10]);
  assert.match(await unary('x'.repeat(1 << 20)), / 1048576$/);
});

test('the status of a call comes through, and is no failure of the peer', async () => {
  const server = await startServer();
  await put(server.address);
  await assert.rejects(unary('missing'), { code: grpc.status.NOT_FOUND, details: 'no missing' });
  await until('it is counted', async () => (await statusOf(server)).requests === 1);
  assert.equal((await statusOf(server)).failures, 0);
});

test('a server streams', async () => {
  await put((await startServer()).address);
  const stream = client.makeServerStreamRequest('/test.Echo/Count', serialize, deserialize, '1000');
  const received: string[] = [];
  for await (const text of stream) received.push(String(text));
  assert.deepEqual(
    received,
    Array.from({ length: 1000 }, (_, i) => `${i}`),
  );
});

test('a stream outlives its peer in the table', async () => {
  const [a, b] = [await startServer(), await startServer()];
  await put(a.address);
  const stream = chat();
  assert.equal(await say(stream, '1'), `${a.address} 1`);
  await until('it is active', async () => (await statusOf(a)).active === 1);
  await put(b.address);
  assert.match(await unary('x'), new RegExp(b.address));
  assert.equal(await say(stream, '2'), `${a.address} 2`);
  await admin.write('DELETE', path);
  await assert.rejects(unary('x'), { code: grpc.status.UNAVAILABLE });
  assert.equal(await say(stream, '3'), `${a.address} 3`);
  const ended = once(stream, 'end');
  stream.end();
  stream.resume();
  await ended;
  await put(a.address);
  await until('none is active', async () => (await statusOf(a)).active === 0);
});

test('peers that refuse are passed over, and none at all is UNAVAILABLE', async () => {
  const server = await startServer();
  await put([server.address, { backup: true }], await deadAddress(), await deadAddress());
  for (let i = 0; i < 4; i += 1) assert.match(await unary('x'), new RegExp(server.address));
  await put();
  await assert.rejects(unary('x'), { code: grpc.status.UNAVAILABLE });
  // and the client's connection is as good as before
  await put(server.address);
  assert.match(await unary('x'), new RegExp(server.address));
});
