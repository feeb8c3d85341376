// Proves upstreams of thousands of peers: after any writes, in every size, the
// table is what a plain object patched in the same way is, and both workers
// send to exactly those peers.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Client,
  deadPeer,
  deadPeers,
  onTwoWorkers,
  type Peers,
  read,
  startOpenresty,
} from './openresty.ts';

// Every try is refused at once, so that one request goes to as many peers as it may.
const open = await startOpenresty({
  dict: '16m',
  locations: `
    location = /tries {
        error_log /dev/null crit;
        proxy_next_upstream_tries 50;
        error_page 502 503 =200 @tries;
        proxy_pass http://web;
    }
    location @tries { content_by_lua_block { ngx.print(ngx.var.upstream_addr) } }`,
});
const admins = await onTwoWorkers(open.twin);
const webs = await onTwoWorkers(`127.0.0.1:${open.nginx.port}`);
const all = '/v1/upstreams';
const web = `${all}/web`;

let seed = 7;
/** A number from 0 up to below n, the same in every run. */
function random(n: number): number {
  seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
  return Math.floor((seed / 0x80000000) * n);
}

function randomFields(): Record<string, unknown> {
  const fields: Record<string, unknown> = {};
  if (random(3) === 0) fields.weight = random(4);
  if (random(8) === 0) fields.drain = random(2) === 0;
  if (random(4) === 0) fields.id = `id-${random(1e6)}`;
  if (random(8) === 0) fields.slow_start = random(100) / 10;
  return fields;
}

/** RFC 7396 for an object of peers. */
function patched(peers: Peers, patch: Peers): Peers {
  const result = { ...peers };
  for (const [key, change] of Object.entries(patch)) {
    if (change === null) delete result[key];
    else {
      const merged = { ...result[key], ...change };
      for (const name of Object.keys(merged)) if (merged[name] === null) delete merged[name];
      result[key] = merged;
    }
  }
  return result;
}

/** Turns peers into another number of peers, by null for some, and changes some of the rest. */
function randomPatch(peers: Peers, size: number): Peers {
  const patch: Peers = {};
  const keys = Object.keys(peers);
  for (let left = keys.length - size; left > 0; left -= 1) {
    const [key = ''] = keys.splice(random(keys.length), 1);
    patch[key] = null;
  }
  for (let i = Math.min(keys.length, random(30)); i > 0; i -= 1) {
    const key = keys[random(keys.length)] ?? '';
    patch[key] = { ...randomFields(), ...(random(3) === 0 ? { weight: null } : {}) };
  }
  while (keys.length < size) {
    const key = deadPeer(random(1 << 20));
    if (key in peers || key in patch) continue;
    keys.push(key);
    patch[key] = randomFields();
  }
  for (let i = random(3); i > 0; i -= 1) patch[deadPeer((1 << 20) + i)] = null;
  return patch;
}

/** Which peers get requests: two whole turns through them, many to a request. */
async function served(client: Client, weights: number): Promise<string[]> {
  const seen = new Set<string>();
  for (let picks = 0; picks < 2 * weights; picks += 50) {
    const { body } = await client.send('GET', '/tries');
    const tried = body.split(', ');
    assert.equal(new Set(tried).size, tried.length, 'a peer was tried twice');
    for (const key of tried) seen.add(key);
  }
  return [...seen].sort();
}

async function assertServed(peers: Peers): Promise<void> {
  const expected: string[] = [];
  let weights = 0;
  for (const [key, fields] of Object.entries(peers)) {
    const weight = Number(fields?.weight ?? 1);
    if (weight === 0 || fields?.drain === true) continue;
    expected.push(key);
    weights += weight;
  }
  for (const client of webs) assert.deepEqual(await served(client, weights), expected.sort());
}

const sizes = [
  0, 1, 63, 64, 65, 66, 64, 65, 128, 129, 40, 300, 31, 32, 33, 64, 65, 64, 600, 2000, 1990, 520,
  500, 256, 255, 70, 63, 1, 2500, 10, 0, 5000, 4096, 10_000, 9_000, 2_100, 2_000, 60, 65, 3,
];

test('a random walk through all sizes, by patches and whole', async () => {
  let model: Peers = {};
  await admins[0].write('PUT', web, { peers: {} });
  for (const [round, size] of sizes.entries()) {
    const admin = admins[round % 2] ?? admins[0];
    const patch = randomPatch(model, size);
    const expected = patched(model, patch);
    const { etag } = await read(admin);
    const whole = random(3) === 0;
    const written = whole
      ? await admin.write('PUT', web, { peers: expected }, { 'if-match': etag })
      : await admin.write('PATCH', web, { peers: patch }, { 'if-match': etag });
    model = expected;
    assert.equal(Object.keys(model).length, size);

    // Both workers, the one that wrote and the other, have it in full.
    for (const reader of admins) {
      const { document, etag: now } = await read(reader);
      assert.equal(now, written.etag);
      assert.deepEqual(document.upstreams, { web: { peers: model } });
    }
    // To write the same again, in another form, changes nothing.
    const body = { upstreams: { web: { peers: model } } };
    const again = await admin.write(whole ? 'PATCH' : 'PUT', all, body);
    assert.deepEqual([again.changed, again.etag], [[], written.etag]);
    if (size > 0 && (size < 700 || round % 4 === 0)) await assertServed(model);
  }
});

test('one peer among 1,000 changes: its upstream alone moves', async () => {
  const [admin, other] = admins;
  const upstreams = { web: { peers: deadPeers(1000) }, api: { peers: deadPeers(1000) } };
  await admin.write('PUT', all, { upstreams });
  const versions = async () => {
    const status = JSON.parse(await other.get('/v1/status'));
    return [status.version, status.upstreams.web.version, status.upstreams.api.version];
  };
  const [version, , api] = await versions();
  const key = deadPeer(500);
  for (const [step, change] of [{ weight: 7 }, null, {}, { drain: true }].entries()) {
    const patch = { upstreams: { web: { peers: { [key]: change } } } };
    assert.deepEqual((await admin.write('PATCH', all, patch)).changed, ['web']);
    const now = version + step + 1;
    assert.deepEqual(await versions(), [now, now, api]);
  }
});

test('one peer among 10,000 changes: both workers know at the next request', async () => {
  const [admin] = admins;
  const key = deadPeer(12_345);
  await admin.write('PUT', web, { peers: deadPeers(10_000, () => ({ weight: 0 })) });
  for (let round = 0; round < 20; round += 1) {
    for (const change of [{}, null]) {
      await admin.write('PATCH', web, { peers: { [key]: change } });
      for (const client of webs) {
        const { status, body } = await client.send('GET', '/tries');
        assert.deepEqual([status, body], [200, change === null ? '' : key]);
      }
    }
  }
});
