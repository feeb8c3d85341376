// Proves that a full dict refuses what does not fit with 507 and loses nothing:
// the last good state serves, and what makes room still works.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  assertRefused,
  deadPeer,
  deadPeers,
  type Openresty,
  read,
  serve,
  startOpenresty,
} from './openresty.ts';

const all = '/v1/upstreams';
const full = { status: 507, detail: /enlarge lua_shared_dict reloadless/ };

/** Sends patches until one does not fit; asserts that this one changed nothing. @returns how many fitted */
async function fill(open: Openresty, patch: (i: number) => object): Promise<number> {
  for (let i = 0; ; i += 1) {
    const upstreams = patch(i);
    const send = () => open.admin.send('PATCH', all, { upstreams });
    const answer = await send();
    if (answer.status !== 200) {
      await assertRefused(open, send, full);
      return i;
    }
  }
}

async function upstreams(open: Openresty): Promise<Record<string, { peers: object }>> {
  return (await read(open.admin)).document.upstreams;
}

test('a dict full of upstreams', async () => {
  const open = await startOpenresty({ dict: '256k' });
  const { admin } = open;
  await serve(open);
  const name = (i: number) => `service-${i}`;
  const fitted = await fill(open, (i) => ({ [name(i)]: { peers: deadPeers(10) } }));
  assert.ok(fitted > 20, `${fitted} fitted`);

  // Nothing that grows, in whatever form: alone, in a whole document, beside a removal.
  const { document } = await read(admin);
  const more = { peers: deadPeers(200) };
  for (const [method, path, body] of [
    ['PUT', `${all}/more`, more],
    ['PUT', `${all}/${name(0)}`, more],
    ['PATCH', `${all}/${name(0)}`, more],
    ['PUT', all, { upstreams: { ...document.upstreams, more } }],
    ['PATCH', all, { upstreams: { more, [name(0)]: null } }],
  ] as const) {
    await assertRefused(open, () => admin.send(method, path, body), full);
  }

  // All that adds no peer, down to the last upstream.
  await admin.write('PATCH', `${all}/${name(0)}`, { peers: { [deadPeer(0)]: null } });
  await admin.write('PUT', `${all}/${name(1)}`, { peers: deadPeers(9) });
  await admin.write('PATCH', `${all}/${name(2)}`, { peers: { [deadPeer(3)]: { weight: null } } });
  await admin.write('DELETE', `${all}/${name(3)}`);
  for (const leaving of [{ drain: true }, { weight: 0 }]) {
    await admin.write('PATCH', `${all}/${name(4)}`, { peers: { [deadPeer(1)]: leaving } });
  }
  const left = await upstreams(open);
  assert.equal(Object.keys(left).length, fitted);
  assert.deepEqual(left[name(0)]?.peers, without(10, 0));
  assert.equal(Object.keys(left[name(1)]?.peers ?? {}).length, 9);

  const removals: Record<string, null> = {};
  for (let i = 4; i < fitted; i += 1) removals[name(i)] = null;
  await admin.write('PATCH', all, { upstreams: removals });
  // and then there is room again, for about as much as before
  const again: Record<string, object> = {};
  for (let i = 4; i < 0.9 * fitted; i += 1) again[name(i)] = { peers: deadPeers(10) };
  await admin.write('PATCH', all, { upstreams: again });
  await admin.write('PUT', all, { upstreams: {} });
  assert.deepEqual(await upstreams(open), {});
});

/** deadPeers(n) but for one. */
function without(n: number, i: number): object {
  const peers = deadPeers(n);
  delete peers[deadPeer(i)];
  return peers;
}

test('one upstream that fills the dict loses its peers one by one', async () => {
  const open = await startOpenresty({ dict: '512k' });
  const { admin } = open;
  await serve(open);
  // Long ids: heads and chunks of more than a page each.
  const fields = (i: number) => ({ id: `${i}`.padStart(200, 'x') });
  const step = 20;
  const fitted = await fill(open, (round) => {
    const peers: Record<string, object> = {};
    for (let i = round * step; i < (round + 1) * step; i += 1) peers[deadPeer(i)] = fields(i);
    return { big: { peers } };
  });
  assert.ok(fitted > 10, `${fitted} fitted`);

  const expected = deadPeers(fitted * step, fields);
  const keys = Object.keys(expected);
  // Across every size at which the chunks are laid anew.
  while (keys.length > 0) {
    const gone: Record<string, null> = {};
    for (const key of keys.splice(0, keys.length > 150 ? 7 : 1)) {
      gone[key] = null;
      delete expected[key];
    }
    await admin.write('PATCH', `${all}/big`, { peers: gone });
  }
  assert.deepEqual((await upstreams(open)).big, { peers: {} });
  await admin.write('PATCH', `${all}/big`, { peers: deadPeers(fitted * step - step, fields) });
});

test('a full dict whose free pages are all apart still loses any peer', async () => {
  const open = await startOpenresty({ dict: '512k' });
  const { admin } = open;
  await serve(open);
  const name = (i: number) => `service-${i}`;
  // Heads of all sizes up to ten pages; every fifth goes, and smaller ones fill its place.
  const size = (i: number) => 1 + ((i * 37) % 64);
  const fields = (i: number) => ({
    id: 'x'.repeat(1 + ((i * 53) % 255)),
    zone: 'y'.repeat(1 + ((i * 71) % 255)),
  });
  let made = 0;
  const add = (most: number) =>
    fill(open, () => ({
      [name(made++)]: { peers: deadPeers(Math.min(most, size(made)), fields) },
    }));
  for (let round = 0; round < 4; round += 1) {
    await add(64);
    const gone: Record<string, null> = {};
    for (let i = round; i < made; i += 5) gone[name(i)] = null;
    await admin.write('PATCH', all, { upstreams: gone });
  }
  await add(3);

  const { web: _, ...services } = await upstreams(open);
  for (const [service, { peers }] of Object.entries(services)) {
    await admin.write('PATCH', `${all}/${service}`, { peers: { [deadPeer(0)]: null } });
    const { [deadPeer(0)]: gone, ...left } = peers as Record<string, object>;
    assert.deepEqual(JSON.parse(await admin.get(`${all}/${service}`)).peers, left);
    assert.deepEqual(gone, fields(0));
  }
});
