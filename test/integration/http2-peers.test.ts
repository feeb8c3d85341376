// Proves HTTP/2 to the peers: turns, kept connections, and that another peer is
// tried as nginx.conf says.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type Http2ServerResponse } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import { after, test } from 'node:test';
import { findNginx } from '../stack/install.mjs';
import { deadAddress, peersOf } from './backends.ts';
import { startOpenresty, tries } from './openresty.ts';

const { version = '' } = findNginx() ?? {};
const isOld = version.localeCompare('1.29.4', undefined, { numeric: true }) < 0;
const skip = isOld && `nginx ${version} has no HTTP/2 to peers, 1.29.4 has`;

const { admin, web } = await startOpenresty({
  workers: 1,
  locations: `
    location /two {
        ${isOld ? '' : 'proxy_http_version 2;'}
        proxy_pass http://web;
        location /two/again {
            proxy_next_upstream error timeout invalid_header;
            proxy_pass http://web;
        }
    }`,
});

const put = (...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', '/v1/upstreams/web', { max_fails: 0, peers: peersOf(...peers) });

/** A peer that speaks nothing but HTTP/2, and its connections. */
async function startPeer(answer: (response: Http2ServerResponse, text: string) => void = end) {
  const sockets: Socket[] = [];
  const server = createServer((request, response) => {
    let length = 0;
    request.on('data', (chunk) => {
      length += chunk.length;
    });
    request.on('end', () => answer(response, `${request.method} ${length}`));
  });
  server.on('connection', (socket) => sockets.push(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  after(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, sockets };
}

function end(response: Http2ServerResponse, text: string): void {
  response.end(text);
}

test('requests take turns and share one connection for each peer', { skip }, async () => {
  const peers = [await startPeer(), await startPeer()];
  await put(...peers.map(({ address }) => address));
  const served: string[] = [];
  for (let i = 1; i <= 20; i += 1) {
    const answer = await web.send('POST', '/two', 'x'.repeat(i * 10_000));
    assert.deepEqual([answer.status, answer.body], [200, `POST ${i * 10_000}`]);
    served.push(...tries(answer));
  }
  for (const { address, sockets } of peers) {
    assert.equal(served.filter((peer) => peer === address).length, 10);
    assert.equal(sockets.length, 1);
  }
});

test('peers that refuse are passed over', { skip }, async () => {
  const good = await startPeer();
  const dead = [await deadAddress(), await deadAddress()];
  await put([good.address, { backup: true }], ...dead);
  for (let i = 0; i < 5; i += 1) {
    const answer = await web.send('GET', '/two');
    assert.equal(answer.status, 200);
    assert.deepEqual(tries(answer).sort(), [...dead, good.address].sort());
  }
});

test('a connection that the only peer has closed costs no request', { skip }, async () => {
  const peer = await startPeer();
  await put(peer.address);
  for (let i = 1; i <= 10; i += 1) {
    assert.equal((await web.send('GET', '/two')).status, 200);
    assert.equal(peer.sockets.length, i);
    peer.sockets.at(-1)?.destroy();
  }
});

test('a stream that is reset is an invalid header to nginx', { skip }, async () => {
  const good = await startPeer();
  const bad = await startPeer((response) => response.stream.close(2));
  await put(bad.address, [good.address, { backup: true }]);
  for (let i = 0; i < 5; i += 1) {
    assert.equal((await web.send('GET', '/two')).status, 502);
    const again = await web.send('GET', '/two/again');
    assert.deepEqual([again.status, tries(again)], [200, [bad.address, good.address]]);
  }
});
