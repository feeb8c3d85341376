// Proves that a setting that is accepted serves: long and odd hash keys, cookie
// names, and what lies at the edge of each range.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Peer, peersOf, startPeers } from './backends.ts';
import { assertRefused, serve, startOpenresty } from './openresty.ts';

const open = await startOpenresty({ workers: 1 });
const { admin, web } = open;
const path = '/v1/upstreams/web';
const peers = (await startPeers(2)) as [Peer, Peer];

/** Asserts that the settings are taken, and that both of two requests are served. */
async function assertServes(settings: object, headers: Record<string, string> = {}): Promise<void> {
  await admin.write('PUT', path, { ...settings, peers: peersOf(...peers) });
  for (let i = 0; i < 2; i += 1) {
    const { status } = await web.send('GET', `/${i}?a=${i}`, undefined, headers);
    assert.equal(status, 200, JSON.stringify(settings));
  }
}

test('a hash key of any number of variables serves', async () => {
  for (let n = 1; 2 * n <= 1024; n += 1)
    await assertServes({ balance: 'hash', hash_key: '$a'.repeat(n) });
  for (let n = 1; 3 * n <= 1024; n += 1)
    await assertServes({ balance: 'hash', hash_key: '$a-'.repeat(n) });
  await assertServes({ balance: 'hash', hash_key: `\${uri}${'x'.repeat(1018)}` });
});

test('a long hash key tells requests apart by its last variable', async () => {
  const many = await startPeers(20);
  const hash_key = `${'$host-'.repeat(150)}$arg_a`;
  await admin.write('PUT', path, { balance: 'hash', hash_key, peers: peersOf(...many) });
  const seen = new Set<unknown>();
  for (let round = 0; round < 2; round += 1) {
    for (let i = 0; i < 20; i += 1) {
      const { headers } = await web.send('GET', `/?a=${i}`);
      seen.add(`${i} ${headers['x-upstream']}`);
    }
  }
  assert.equal(seen.size, 20);
  assert.ok(new Set([...seen].map((line) => String(line).split(' ')[1])).size > 5);
});

test('a hash key of variables that nginx does not know, or does not set, serves', async () => {
  const names =
    '1 9 arg_ args binary_remote_addr body_bytes_sent connection content_length cookie_ cookie_a' +
    ' date_gmt document_root host hostname http_ http_x https is_args limit_rate msec no_such pid' +
    ' pipe proxy_add_x_forwarded_for proxy_host query_string realpath_root remote_user request' +
    ' request_body request_body_file request_completion request_id request_length request_time' +
    ' sent_http_ sent_http_x server_addr ssl_session_id status tcpinfo_rtt time_iso8601 upstream_addr' +
    ' upstream_http_ upstream_http_x upstream_status uri x_y __ A Host';
  for (const name of names.split(' ')) {
    await assertServes({ balance: 'hash', hash_key: `$${name}` });
    await assertServes({ balance: 'hash', hash_key: `\${${name}}` });
  }
  for (const odd of ['$a}', '$$a', 'a$a$', '"$a"', '\\$a\\', "]]$a'", '%s$a%d', 'ü$a€', '{$a}']) {
    await assertServes({ balance: 'hash', hash_key: odd });
  }
});

test('a hash key without a whole variable is refused', async () => {
  await serve(open);
  for (const hash_key of ['a', '', '}', 'b$', 'a-b}'].map((rest) => `\${${rest}`)) {
    await assertRefused(open, () => admin.send('PATCH', path, { balance: 'hash', hash_key }), {
      status: 422,
      pointer: '/hash_key',
    });
  }
});

test('any cookie name serves', async () => {
  for (const sticky of ['-', '_', 'a-b', 'A_b', '0', 'x'.repeat(64), '-'.repeat(64)]) {
    await assertServes({ sticky }, { cookie: `${sticky}=x` });
  }
});

test('the edges of each range serve', async () => {
  for (const time of [0, 0.001, 86_400]) {
    await assertServes({ send_timeout: time, fail_timeout: time });
  }
  // A peer may be slower than a millisecond.
  for (const time of [0, 86_400]) await assertServes({ connect_timeout: time, read_timeout: time });
  for (const max_tries of [1, 100]) await assertServes({ max_tries });
  for (const max_fails of [0, 65_535]) await assertServes({ max_fails });
  for (const zone of ['"', '\\', 'ü', ' ', 'x'.repeat(255)]) await assertServes({ zone });
  for (const fields of [{ slow_start: 0.001 }, { slow_start: 86_400 }, { max_conns: 65_535 }]) {
    for (const balance of ['round_robin', 'least_conn', 'random', 'ewma', 'hash']) {
      await admin.write('PUT', path, {
        balance,
        hash_key: '$uri',
        peers: peersOf(...peers.map((peer): [Peer, object] => [peer, fields])),
      });
      for (let i = 0; i < 3; i += 1) assert.equal((await web.send('GET', `/${i}`)).status, 200);
    }
  }
});
