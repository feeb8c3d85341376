// Backends of the balance tests: each answers as the test says.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { after } from 'node:test';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { close, listen } from '../stack/server.ts';
import type { Peers } from './openresty.ts';

export interface Peer {
  /** As nginx writes it. */
  address: string;
  /** What came, as `GET /path`, in order. */
  requests: string[];
  /** Ends it: from then on connecting is refused. */
  stop: () => Promise<void>;
}

/**
 * Starts a backend that ends with the test that calls.
 *
 * @param handle answers a request; nth counts those of its connection from 1
 */
export async function startPeer(
  handle: (request: IncomingMessage, response: ServerResponse, nth: number) => void = ok,
  host = '127.0.0.1',
  port = 0,
): Promise<Peer> {
  const counts = new WeakMap<Socket, number>();
  const requests: string[] = [];
  const server = createServer((request, response) => {
    const nth = (counts.get(request.socket) ?? 0) + 1;
    counts.set(request.socket, nth);
    requests.push(`${request.method} ${request.url}`);
    // A POST is there in full before it is answered.
    request.resume().on('end', () => handle(request, response, nth));
  });
  const address = await listen(server, host, port);
  const stop = () => close(server);
  after(stop);
  return { address, requests, stop };
}

export interface Waiting extends Peer {
  /** The answers that the test has not taken yet, in order. */
  waiting: ServerResponse[];
  /** Takes the first of them, once there is one. */
  next: () => Promise<ServerResponse>;
}

/** A backend whose requests wait until the test answers them. */
export async function startWaiting(): Promise<Waiting> {
  const waiting: ServerResponse[] = [];
  const peer = await startPeer((_request, response) => waiting.push(response));
  return { ...peer, waiting, next: () => until('a request', () => waiting.shift()) };
}

function ok(_request: IncomingMessage, response: ServerResponse): void {
  response.end('ok');
}

type Entry = Peer | string;

/** The peers of an upstream: addresses, or backends, each with its fields if it has some. */
export function peersOf(...entries: (Entry | [Entry, object])[]): Peers {
  const peers: Peers = {};
  for (const entry of entries) {
    const [peer, fields] = Array.isArray(entry) ? entry : [entry, {}];
    peers[typeof peer === 'string' ? peer : peer.address] = { ...fields };
  }
  return peers;
}

/** n backends that answer. */
export function startPeers(n: number): Promise<Peer[]> {
  return Promise.all(Array.from({ length: n }, () => startPeer()));
}

/** Takes every request and answers none. */
export function hang(): void {}

/** Closes the connection instead of an answer. */
export function cut(request: IncomingMessage): void {
  request.socket.destroy();
}

/** Keeps connections open, but cuts them at their second request: what a pool finds stale. */
export function cutSecond(request: IncomingMessage, response: ServerResponse, nth: number): void {
  if (nth > 1) cut(request);
  else ok(request, response);
}

/** An address where connecting is refused. */
export async function deadAddress(): Promise<string> {
  return `127.0.0.1:${await freePort()}`;
}
