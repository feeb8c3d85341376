import { type ClientHttp2Session, connect as startSession } from 'node:http2';
import { isIP } from 'node:net';
import { Duplex } from 'node:stream';
import { connect as connectSecurely, type TLSSocket } from 'node:tls';
import type { SecureOptions } from './tls.ts';

/** What is there does not speak HTTP/2. */
export class NoHttp2 extends Error {}

/** For a connection with TLS and HTTP/2 to come up, in ms. */
const patience = 10_000;

/**
 * What may be on its way before we have read it, in bytes: of one answer, and of
 * all on a connection. Node's 64 KiB would make one round trip of each 64 KiB.
 */
const answerWindow = 2 ** 20;
const connectionWindow = 2 ** 24;

/** In MB, for a connection. Node refuses new streams above it; its 10 are less than our windows. */
const maxSessionMemory = 100;

/**
 * Connects, and waits until the server has said how many streams it takes.
 *
 * @param url `https:`
 * @throws NoHttp2 when the server has chosen another protocol, else Node's error
 */
export function connectHttp2(url: URL, secure: SecureOptions): Promise<ClientHttp2Session> {
  // A URL has an IPv6 address in brackets, a socket takes it without.
  const host = url.hostname.replace(/^\[|\]$/g, '');
  return new Promise((resolve, reject) => {
    const socket = connectSecurely({
      host,
      port: Number(url.port || 443),
      // An address is no name to ask for.
      servername: isIP(host) ? '' : host,
      ALPNProtocols: ['h2', 'http/1.1'],
      ...secure,
    });
    const late = Object.assign(new Error('no connection in time'), { isTimeout: true });
    const timer = setTimeout(() => socket.destroy(late), patience);
    const closed = new Error('the connection was closed');
    const fail = (error: Error) => {
      clearTimeout(timer);
      reject(error);
    };
    socket.once('error', fail);
    socket.once('close', () => fail(Object.assign(closed, { code: 'ECONNRESET' })));
    socket.once('secureConnect', () => {
      if (socket.alpnProtocol !== 'h2') {
        socket.destroy();
        fail(new NoHttp2());
        return;
      }
      socket.setNoDelay(true);
      const stream = watchful(socket);
      const session = startSession(url.origin, {
        createConnection: () => stream,
        settings: { initialWindowSize: answerWindow, enablePush: false },
        maxSessionMemory,
      });
      // Node calls it, too; its own says good-bye, which cannot be written to such
      // a stream during another write (docs/discoveries/consul-http2.md).
      session.destroy = () => {
        stream.destroy();
      };
      session.on('error', fail);
      session.once('remoteSettings', () => {
        clearTimeout(timer);
        session.setLocalWindowSize(connectionWindow);
        resolve(session);
      });
    });
  });
}

/**
 * A socket of which HTTP/2 hears when it is reset. Where Node lets its session read
 * and write the socket itself, it may be that nobody learns of that end
 * (docs/discoveries/consul-http2.md).
 */
function watchful(socket: TLSSocket): Duplex {
  const stream = new Duplex({
    read: () => socket.resume(),
    write: (chunk, _, done) => socket.write(chunk, done),
    final: (done) => socket.end(done),
    destroy(error, done) {
      socket.destroy();
      done(error);
    },
  });
  socket.on('data', (chunk) => {
    if (!stream.push(chunk)) socket.pause();
  });
  socket.on('end', () => stream.push(null));
  socket.on('error', (error) => stream.destroy(error));
  socket.on('close', () => stream.destroy());
  return stream;
}
