// Proves that a sticky cookie holds a client to its peer through changes of the
// peer list, reloads and restarts, and lets go of it when the peer cannot serve.
import assert from 'node:assert/strict';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { test } from 'node:test';
import { saveSnapshot } from '../../agent/snapshot/file.ts';
import { until } from '../stack/process.ts';
import { cut, deadAddress, type Peer, peersOf, startPeer, startPeers } from './backends.ts';
import { type Answer, type Client, client, deadPeers, read, startOpenresty } from './openresty.ts';

const open = await startOpenresty({
  // what a worker has ejected, the other one still tries
  workers: 1,
  locations: `
    location /app {
        access_by_lua_block { require("reloadless").access("web") }
        header_filter_by_lua_block { require("reloadless").header() }
        proxy_pass http://web;
    }
    location /page {
        header_filter_by_lua_block { require("reloadless").header() }
        proxy_pass http://web;
        error_page 502 =200 @page;
    }
    location @page { return 200 "page"; }`,
});
const { admin, nginx } = open;
const url = `127.0.0.1:${nginx.port}`;
const path = '/v1/upstreams/web';

const settings = { owner: 'reloadless', sticky: 'sid', max_fails: 1, fail_timeout: 600 };
const put = (...peers: Parameters<typeof peersOf>) =>
  admin.write('PUT', path, { ...settings, peers: peersOf(...peers) });
const patch = (peers: object) => admin.write('PATCH', path, { peers });

/** Someone with a cookie jar, as a browser has one. */
class Visitor {
  cookie: string | undefined;
  readonly #client: Client = client(url);

  async send(method = 'GET', at = '/app'): Promise<Answer> {
    const answer = await this.#client.send(method, at, undefined, { cookie: this.cookie });
    const sid = answer.headers['set-cookie']?.find((text) => text.startsWith('sid='));
    if (sid !== undefined) this.cookie = sid.split(';')[0];
    return answer;
  }

  /** The peer that answered. */
  async visit(): Promise<string> {
    const { status, headers } = await this.send();
    assert.equal(status, 200);
    return String(headers['x-upstream']).split(', ').at(-1) ?? '';
  }

  /** Asserts that n requests in a row reach the peer at once and get no other cookie. */
  async assertHeld(address: string, n = 6): Promise<void> {
    for (let i = 0; i < n; i += 1) {
      const { status, headers } = await this.send();
      assert.deepEqual(
        [status, headers['x-upstream'], headers['set-cookie']],
        [200, address, undefined],
      );
    }
  }
}

/** Someone new who is held to this peer. */
async function visitorOf({ address }: Peer): Promise<Visitor> {
  for (let i = 0; i < 50; i += 1) {
    const visitor = new Visitor();
    if ((await visitor.visit()) === address) return visitor;
  }
  throw new Error(`nobody came to ${address}`);
}

const three = async () => (await startPeers(3)) as [Peer, Peer, Peer];

test('each client stays with its peer, whatever the way to balance', async () => {
  const [a, b, c] = await three();
  await put(a, b, c);
  const visitors: [Peer, Visitor][] = [];
  for (const peer of [a, b, c]) visitors.push([peer, await visitorOf(peer)]);
  for (const balance of ['least_conn', 'random', 'ewma', 'hash', 'round_robin']) {
    await admin.write('PATCH', path, { balance, hash_key: '$request_id' });
    for (const [peer, visitor] of visitors) await visitor.assertHeld(peer.address);
  }
});

test('the cookie is a plain token for this site alone', async () => {
  const [a] = await three();
  await put(a);
  const answer = await new Visitor().send();
  const [cookie = '', ...others] = answer.headers['set-cookie'] ?? [];
  assert.deepEqual(others, []);
  assert.match(cookie, /^sid=[0-9a-f]{32}; Path=\/; HttpOnly; SameSite=Lax$/);
});

test('the cookie has the attributes that were pushed, and is changed by a patch', async () => {
  const [a] = await three();
  await put(a);
  const cookie = async (sticky: object | string) => {
    await admin.write('PATCH', path, { sticky });
    const [text] = (await new Visitor().send()).headers['set-cookie'] ?? [];
    return text?.replace(/=[0-9a-f]{32};/, ';');
  };
  const all = { cookie: 'all', path: '/app', domain: 'example.com', max_age: 3600 };
  for (const [sticky, expected] of [
    [{ cookie: 'one' }, 'one; Path=/; HttpOnly; SameSite=Lax'],
    [
      { ...all, secure: true, http_only: false, same_site: 'none' },
      'all; Path=/app; Domain=example.com; Max-Age=3600; Secure; SameSite=None',
    ],
    // what a patch does not name stays, and null takes away
    [{ max_age: 0, domain: null, http_only: true, same_site: 'strict' }, ''],
    ['sid', 'sid; Path=/; HttpOnly; SameSite=Lax'],
  ] as const) {
    const patched = 'all; Path=/app; Max-Age=0; Secure; HttpOnly; SameSite=Strict';
    assert.equal(await cookie(sticky), expected || patched);
  }
  const { document } = await read(admin);
  await admin.write('PATCH', path, { sticky: { cookie: 'z', secure: true, path: '/' } });
  const again = await admin.write('PATCH', path, { sticky: { path: '/', secure: true } });
  assert.deepEqual(again.changed, []);
  await admin.write('PUT', '/v1/upstreams', document);
});

test('peers that come, change and go around it do not matter', async () => {
  const [a, b, c] = await three();
  await put(a);
  const visitor = await visitorOf(a);
  for (const change of [
    { [b.address]: {}, [c.address]: { weight: 5 } },
    deadPeers(200, () => ({ backup: true })),
    { [a.address]: { weight: 3, id: 'a', zone: 'east' } },
    { [b.address]: null, [deadPeersFirst()]: null },
    { [a.address]: { backup: true } },
    { [c.address]: { drain: true } },
  ]) {
    await patch(change);
    await visitor.assertHeld(a.address);
  }
  await admin.write('PATCH', path, { balance: 'least_conn' });
  await visitor.assertHeld(a.address);
});

function deadPeersFirst(): string {
  return Object.keys(deadPeers(1))[0] ?? '';
}

test('a reload and a restart do not matter', async () => {
  const [a, b, c] = await three();
  await put(a, b, c);
  const cookies: [Peer, string | undefined][] = [];
  for (const peer of [a, b, c]) cookies.push([peer, (await visitorOf(peer)).cookie]);
  const assertAllHeld = async () => {
    for (const [peer, cookie] of cookies) {
      const visitor = new Visitor();
      visitor.cookie = cookie;
      await visitor.assertHeld(peer.address, 3);
    }
  };

  const [before] = nginx.workers();
  nginx.hup();
  await until('a new worker alone', () => {
    const [pid, ...others] = nginx.workers();
    return pid !== before && others.length === 0;
  });
  await assertAllHeld();

  const { document } = await read(client(`127.0.0.1:${nginx.adminPort}`));
  await nginx.stop();
  await saveSnapshot(nginx.snapshot, { savedAt: new Date(), document });
  await nginx.up();
  await assertAllHeld();

  await nginx.stop();
  await saveSnapshot(nginx.snapshot, { savedAt: new Date(), document: { upstreams: {} } });
  await nginx.up();
  assert.equal((await new Visitor().send()).status, 503);
  await put(c, b, a);
  await assertAllHeld();
});

test('a peer that is gone is left for another, for good', async () => {
  const [a, b] = await three();
  await put(a, b);
  const visitor = await visitorOf(a);
  await patch({ [a.address]: null });
  assert.equal(await visitor.visit(), b.address);
  await patch({ [a.address]: {} });
  await visitor.assertHeld(b.address);
});

test('a peer that refuses is retried elsewhere, and is left while it is ejected', async () => {
  const [a, b] = await three();
  await put(a, b);
  const [one, two] = [await visitorOf(a), await visitorOf(a)];
  await a.stop();
  const answer = await one.send();
  assert.equal(answer.status, 200);
  assert.equal(answer.headers['x-upstream'], `${a.address}, ${b.address}`);
  await one.assertHeld(b.address);

  await startPeer(undefined, '127.0.0.1', Number(a.address.split(':')[1]));
  const other = await two.send();
  assert.deepEqual([other.status, other.headers['x-upstream']], [200, b.address]);
  await two.assertHeld(b.address);
});

test('a full peer serves its others, and the client goes elsewhere', async () => {
  const held: ServerResponse[] = [];
  let holds = false;
  const a = await startPeer((_request, response) => {
    if (holds) held.push(response);
    else response.end('ok');
  });
  const [b] = await three();
  await put([a, { max_conns: 1 }], b);
  const [one, two, last] = [await visitorOf(a), await visitorOf(a), await visitorOf(a)];
  holds = true;
  const pending = one.send();
  const response = await until('the request is there', () => held[0]);
  assert.equal(await two.visit(), b.address);
  await two.assertHeld(b.address);
  holds = false;
  response.end('ok');
  assert.equal((await pending).status, 200);
  await last.assertHeld(a.address);
});

test('a peer that drains or has weight 0 keeps its clients and gets no new ones', async () => {
  const [a, b] = await three();
  for (const fields of [{ drain: true }, { weight: 0 }, { drain: true, backup: true }]) {
    await put(a, b);
    const visitor = await visitorOf(a);
    await put([a, fields], b);
    await visitor.assertHeld(a.address);
    for (let i = 0; i < 6; i += 1) assert.equal(await new Visitor().visit(), b.address);
    // even as the last of all
    await put([a, fields]);
    await visitor.assertHeld(a.address);
    assert.equal((await new Visitor().send()).status, 503);
  }
});

test('a peer that is down lets its clients go, and has them back', async () => {
  const [a, b] = await three();
  await put(a, b);
  const [visitor, other] = [await visitorOf(a), await visitorOf(a)];
  await put([a, { down: true }], b);
  assert.equal(await visitor.visit(), b.address);
  await visitor.assertHeld(b.address);
  await put([a, { drain: true }], b);
  await other.assertHeld(a.address);
});

test('a draining peer that refuses lets its clients go to those that are left', async () => {
  const [a, b] = await three();
  await put(a, b);
  const visitor = await visitorOf(a);
  await put([a, { drain: true }], b);
  await a.stop();
  assert.equal(await visitor.visit(), b.address);
  await visitor.assertHeld(b.address);
});

test('a cookie that nobody gave is harmless', async () => {
  const [a, b] = await three();
  await put([a, { max_conns: 0 }], b);
  const forged = ['', '0', 'x'.repeat(4000), '../../etc', '%00%ff', a.address, '0'.repeat(32)];
  for (const value of forged) {
    const visitor = new Visitor();
    visitor.cookie = `sid=${value}`;
    const first = await visitor.visit();
    assert.notEqual(visitor.cookie, `sid=${value}`);
    await visitor.assertHeld(first, 2);
  }
  // the address of a peer tells its cookie, yet no cookie makes a peer
  const visitor = await visitorOf(b);
  await put(a);
  assert.equal(await visitor.visit(), a.address);
});

test('no cookie names a peer that failed', async () => {
  const [dead, bad] = [await deadAddress(), await startPeer(cut)];
  await put(dead);
  for (const at of ['/app', '/page']) {
    const answer = await new Visitor().send('GET', at);
    assert.deepEqual(
      [answer.status, answer.headers['set-cookie']],
      [at === '/app' ? 502 : 200, undefined],
    );
  }
  await put(bad);
  const answer = await new Visitor().send('POST');
  assert.deepEqual([answer.status, answer.headers['set-cookie']], [502, undefined]);
});

test('the cookies of the backend stay', async () => {
  const own = ['a=1; Path=/x', 'b=2; Secure'];
  const setting = (cookies: string[]) =>
    startPeer((_request: IncomingMessage, response) => {
      response.writeHead(404, { 'set-cookie': cookies }).end();
    });
  for (const cookies of [own, own.slice(0, 1)]) {
    await put(await setting(cookies));
    const visitor = new Visitor();
    const first = (await visitor.send()).headers['set-cookie'] ?? [];
    assert.deepEqual(first.slice(0, -1), cookies);
    assert.match(first.at(-1) ?? '', /^sid=/);
    assert.deepEqual((await visitor.send()).headers['set-cookie'], cookies);
  }
});

test('an upstream is sticky from the push on, and no longer than until the next', async () => {
  const [a, b] = await three();
  await admin.write('PUT', path, { peers: peersOf(a, b) });
  const visitor = new Visitor();
  assert.notEqual(await visitor.visit(), await visitor.visit());
  assert.equal(visitor.cookie, undefined);

  await put(a, b);
  await visitor.assertHeld(await visitor.visit());
  await admin.write('PATCH', path, { sticky: 'other' });
  const answer = await visitor.send();
  assert.match(String(answer.headers['set-cookie']), /^other=/);
  await admin.write('PATCH', path, { sticky: null });
  assert.notEqual(await visitor.visit(), await visitor.visit());
});
