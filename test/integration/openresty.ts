// What the tests of the OpenResty side share: an nginx of their own with one
// upstream "web", clients that stay on one connection, and the assertions on
// the admin API.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { Agent, type IncomingHttpHeaders, type OutgoingHttpHeaders, request } from 'node:http';
import { after } from 'node:test';
import { crc32 } from 'node:zlib';
import { Backend } from '../stack/backend.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { findNginx } from '../stack/install.mjs';
import { Nginx, type NginxOptions } from '../stack/nginx.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { authorization } from '../stack/token.ts';

export type Peers = Record<string, Record<string, unknown> | null>;
export interface Document {
  upstreams: Record<string, { peers: Record<string, Record<string, unknown>> }>;
}

export interface Answer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
}

/**
 * An HTTP client on one keep-alive connection: one worker answers all it sends.
 * It knows the token of the admin API.
 */
export class Client {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #to: { host: string; port: number } | { socketPath: string };

  /** @param to `host:port`, `[host]:port` or `unix:path` */
  constructor(to: string) {
    const [, host = '', port = ''] = /^(.*):(.*)$/.exec(to) ?? [];
    this.#to =
      host === 'unix'
        ? { socketPath: port }
        : { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) };
  }

  /**
   * @param body sent as it is when it is text or bytes, else as JSON
   * @param headers over the defaults; undefined leaves one out
   */
  async send(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string | string[] | undefined> = {},
  ): Promise<Answer> {
    const type = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
    const all: OutgoingHttpHeaders = {
      authorization,
      ...(body === undefined ? {} : { 'content-type': type }),
      ...headers,
    };
    for (const name of Object.keys(all)) if (all[name] === undefined) delete all[name];
    const isRaw = body === undefined || typeof body === 'string' || Buffer.isBuffer(body);
    const sent = request({ ...this.#to, agent: this.#agent, method, path, headers: all });
    sent.end(isRaw ? body : JSON.stringify(body));
    const [response] = await once(sent, 'response');
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk);
    const text = new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(chunks));
    return { status: response.statusCode, headers: response.headers, body: text };
  }

  /** GET of what must be there. */
  async get(path: string): Promise<string> {
    const answer = await this.send('GET', path);
    assert.equal(answer.status, 200, answer.body);
    return answer.body;
  }

  /** A write that must be taken. @returns its body and ETag */
  async write(
    method: string,
    path: string,
    body?: unknown,
    headers: Record<string, string | undefined> = {},
  ): Promise<{ version: number; changed: string[]; etag: string }> {
    const answer = await this.send(method, path, body, headers);
    assert.equal(answer.status, 200, answer.body);
    assert.equal(answer.headers['content-type'], 'application/json');
    return { ...JSON.parse(answer.body), etag: answer.headers.etag };
  }

  close(): void {
    this.#agent.destroy();
  }
}

export interface Openresty {
  nginx: Nginx;
  /** Of the admin API that the include brings. */
  admin: Client;
  /** Of the server whose requests all go to the upstream "web". */
  web: Client;
  /** `host:port` of a second admin API, which tells the worker in `x-worker`. */
  twin: string;
  backend: Backend;
}

export interface Options extends Omit<NginxOptions, 'http'> {
  /** More of the server of `web`. */
  locations?: string;
  /** More of the http block. */
  servers?: string;
}

/** Starts nginx and a backend; both end with the test that calls. */
export async function startOpenresty(options: Options = {}): Promise<Openresty> {
  const { folder, remove } = temporaryFolder();
  after(remove);
  const backend = await Backend.start('backend');
  after(() => backend.stop());
  const twin = `127.0.0.1:${await freePort()}`;
  const { locations = '', servers = '', ...rest } = options;
  const nginx = await Nginx.start(folder, {
    ...rest,
    http: ({ port }) => `
    keepalive_requests 1000000;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    add_header X-Worker $pid always;
    add_header X-Upstream $upstream_addr always;
    ${upstreamBlock('web', 32)}
    server {
        listen 127.0.0.1:${port} reuseport;
        location / {
            access_by_lua_block { require("reloadless").access("web") }
            proxy_pass http://web;
        }
        ${locations}
    }
    server {
        listen ${twin} reuseport;
        location / { content_by_lua_block { require("reloadless").admin() } }
    }
    ${servers}`,
  });
  after(() => nginx.stop());
  return {
    nginx,
    admin: client(`127.0.0.1:${nginx.adminPort}`),
    web: client(`127.0.0.1:${nginx.port}`),
    twin,
    backend,
  };
}

/**
 * The block of nginx.conf for an upstream.
 *
 * @param keepalive how many idle connections it keeps
 */
export function upstreamBlock(name: string, keepalive = 0): string {
  return `
    upstream ${name} {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("${name}") }
        ${keepalive === 0 ? '' : `keepalive ${keepalive};`}
    }`;
}

/** What a request without a peer gets where no access() answers: OpenResty takes a status. */
export const noPeer = spawnSync(findNginx()?.bin ?? '', ['-v'], {
  encoding: 'utf8',
}).stderr.includes('openresty/')
  ? 503
  : 502;

/** A client that ends with the test that calls. */
export function client(to: string): Client {
  const made = new Client(to);
  after(() => made.close());
  return made;
}

/** Two clients of one address, each on a worker of its own. */
export async function onTwoWorkers(to: string): Promise<[Client, Client]> {
  const worker = async (of: Client) => (await of.send('GET', '/v1/status')).headers['x-worker'];
  const first = client(to);
  const pid = await worker(first);
  return until('a connection to the other worker', async () => {
    const second = new Client(to);
    if ((await worker(second)) === pid) return void second.close();
    after(() => second.close());
    return [first, second];
  });
}

/** The whole document and its ETag. */
export async function read(admin: Client): Promise<{ document: Document; etag: string }> {
  const { status, headers, body } = await admin.send('GET', '/v1/upstreams');
  assert.equal(status, 200, body);
  return { document: JSON.parse(body), etag: headers.etag ?? '' };
}

/** What `/v1/status` says of a peer. */
export async function peerStatus(
  admin: Client,
  { address }: { address: string },
  upstream = 'web',
): Promise<{ state: string; requests: number; failures: number; active: number }> {
  return JSON.parse(await admin.get('/v1/status')).upstreams[upstream].peers[address];
}

/** The peers that the request went to, in order. */
export function tries({ headers }: Answer): string[] {
  return String(headers['x-upstream']).split(', ');
}

/** n peers at addresses where nothing listens, with what `fields` gives each. */
export function deadPeers(n: number, fields: (i: number) => object = () => ({})): Peers {
  const peers: Peers = {};
  for (let i = 0; i < n; i += 1) peers[deadPeer(i)] = { ...fields(i) };
  return peers;
}

/** Address i of those where nothing listens: connecting is refused at once. */
export function deadPeer(i: number): string {
  return `127.${1 + ((i >> 16) & 255)}.${(i >> 8) & 255}.${i & 255}:1`;
}

/** A snapshot file as the agent writes it; `header` spoils the header. */
export function snapshot(document: unknown, header: Record<string, unknown> = {}): string {
  const text = typeof document === 'string' ? document : JSON.stringify(document);
  const body = Buffer.from(text);
  const right = {
    format: 1,
    saved_at: '2026-01-01T00:00:00Z',
    length: body.length,
    crc32: crc32(body),
  };
  return `${JSON.stringify({ ...right, ...header })}\n${text}\n`;
}

/** Starts nginx anew on this snapshot and gives what its log then says. */
export async function restart(
  { nginx, web, admin }: Openresty,
  content: string | Buffer,
): Promise<string> {
  await nginx.stop();
  writeFileSync(nginx.snapshot, content);
  const { length } = nginx.errorLog;
  await nginx.up();
  web.close();
  admin.close();
  return nginx.errorLog.slice(length);
}

/** One backend in "web", so that requests are served. */
export async function serve({ admin, backend }: Openresty): Promise<void> {
  await admin.write('PUT', '/v1/upstreams', {
    upstreams: { web: { owner: 'test', peers: { [backend.address]: { weight: 2 } } } },
  });
}

/** Asserts that requests reach the backend of `serve`. */
export async function assertServing({ web }: Openresty): Promise<void> {
  const answer = await web.send('GET', '/');
  assert.deepEqual([answer.status, answer.body], [200, 'backend\n']);
}

/**
 * Asserts that the answer is this problem (RFC 9457), that it changed nothing
 * and that the last good state serves.
 */
export async function assertRefused(
  open: Openresty,
  send: () => Promise<Answer>,
  expected: { status: number; pointer?: string | undefined; detail?: RegExp | undefined },
): Promise<Answer> {
  const before = await read(open.admin);
  const answer = await send();
  assert.equal(answer.status, expected.status, answer.body);
  assertProblem(answer, expected);
  assert.deepEqual(await read(open.admin), before);
  await assertServing(open);
  return answer;
}

export function assertProblem(
  { status, headers, body }: Answer,
  expected: { pointer?: string | undefined; detail?: RegExp | undefined } = {},
): void {
  assert.equal(headers['content-type'], 'application/problem+json');
  const problem = JSON.parse(body);
  assert.equal(problem.type, 'about:blank');
  assert.equal(problem.status, status);
  assert.equal(typeof problem.title, 'string');
  assert.match(problem.detail, expected.detail ?? /./);
  assert.equal(problem.pointer, expected.pointer);
}
