// A Consul over HTTP/2 in a thread of its own: it holds blocking queries, and answers
// the rest within 20 ms. Its port is the first thing that it says.
import { createSecureServer } from 'node:http2';
import { parentPort, workerData } from 'node:worker_threads';

const server = createSecureServer(workerData);
server.on('session', (session) => session.on('error', () => {}));
server.on('stream', (stream, headers) => {
  stream.on('error', () => {});
  if (headers[':path']?.includes('index=')) return;
  setTimeout(() => {
    if (stream.destroyed) return;
    stream.respond({ 'content-type': 'application/json', 'x-consul-index': '7' });
    stream.end('[]');
  }, Math.random() * 20);
});
server.listen(0, '127.0.0.1', () => {
  const address = server.address();
  parentPort?.postMessage(typeof address === 'object' ? address?.port : undefined);
});
