// Proves that bad requests are refused with the right error and a JSON pointer,
// change nothing, and leave the last good state serving.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertRefused, deadPeers, read, serve, startOpenresty } from './openresty.ts';

const max = 40_000;
const open = await startOpenresty({ init: `max_body = ${max},` });
const { admin } = open;
await serve(open);
const all = '/v1/upstreams';
const web = `${all}/web`;
const key = '10.0.0.1:80';

/** An upstream "web" of one peer, which holds these fields. */
const peer = (fields: unknown) => ({ upstreams: { web: { peers: { [key]: fields } } } });
const upstream = (fields: unknown) => ({ upstreams: { web: fields } });

test('400: what is not JSON', async () => {
  const texts = [
    '',
    ' ',
    'nul',
    '{',
    '{"upstreams":{}}x',
    '{"upstreams":{},}',
    "{'upstreams':{}}",
    '{upstreams:{}}',
    '\ufeff{"upstreams":{}}',
    '{"upstreams":{"web":{"max_fails":0x1}}}',
    '{"upstreams":{"web":{"max_fails":01}}}',
    '{"upstreams":{"web":{"max_fails":NaN}}}',
    '{"upstreams":{"web":{"max_fails":-Infinity}}}',
    '{"upstreams":{"web":{"owner":"\\ud800"}}}',
    `${'{"a":'.repeat(1500)}1${'}'.repeat(1500)}`,
    '['.repeat(10_000),
  ];
  // Bytes that are no UTF-8: alone, overlong, a surrogate, beyond the last, cut off.
  const bytes = ['ff', 'c0af', 'eda080', 'f4908080', 'e282', '80'].map((hex) =>
    Buffer.concat([
      Buffer.from('{"upstreams":{"web":{"owner":"'),
      Buffer.from(hex, 'hex'),
      Buffer.from('"}}}'),
    ]),
  );
  for (const body of [...texts, ...bytes]) {
    for (const [method, path] of [
      ['PUT', all],
      ['PATCH', all],
      ['PUT', web],
      ['PATCH', web],
    ] as const) {
      const send = () => admin.send(method, path, body);
      await assertRefused(open, send, { status: 400, detail: /^the body is not JSON: / });
    }
  }
});

test('411: a body of unknown length', async () => {
  const chunked = { 'transfer-encoding': 'chunked' };
  for (const path of [all, web]) {
    await assertRefused(open, () => admin.send('PATCH', path, {}, chunked), { status: 411 });
  }
});

test('413: a body beyond max_body, which up to there may be in a file', async () => {
  for (const length of [max + 1, 10 * max]) {
    const body = `{"upstreams":{}}${' '.repeat(length - 16)}`;
    for (const [method, path] of [
      ['PUT', all],
      ['PATCH', web],
    ] as const) {
      const send = () => admin.send(method, path, body);
      await assertRefused(open, send, { status: 413, detail: new RegExp(`${length} bytes`) });
    }
  }
  const upstreams = { file: { peers: deadPeers(500) } };
  const text = JSON.stringify({ upstreams });
  await admin.write('PATCH', all, text + ' '.repeat(max - text.length));
  await admin.write('DELETE', `${all}/file`);
});

test('415: another type', async () => {
  for (const [method, path, type] of [
    ['PUT', all, undefined],
    ['PUT', all, 'application/merge-patch+json'],
    ['PUT', web, 'application/json-patch+json'],
    ['PATCH', all, 'text/plain'],
    ['PATCH', all, 'application/x-www-form-urlencoded'],
    ['PATCH', web, 'multipart/form-data; boundary=application/json'],
    ['PATCH', web, ''],
  ] as const) {
    const headers = { 'content-type': type };
    const send = () => admin.send(method, path, { peers: {} }, headers);
    await assertRefused(open, send, { status: 415, detail: /expected application\// });
  }
});

// [body, pointer]: refused by PUT and PATCH of the whole document.
const invalid: [unknown, string][] = [
  ['null', ''],
  ['5', ''],
  ['"x"', ''],
  ['false', ''],
  [{ upstreams: null }, '/upstreams'],
  [{ upstreams: 5 }, '/upstreams'],
  [{ upstreams: {}, version: 1 }, '/version'],
  [{ '': 1 }, '/'],
  [{ 'a~b/c': 1 }, '/a~0b~1c'],
  [{ upstreams: { '': {} } }, '/upstreams/'],
  [{ upstreams: { 'a b': {} } }, '/upstreams/a b'],
  [{ upstreams: { 'a/~b': {} } }, '/upstreams/a~1~0b'],
  [{ upstreams: { ü: {} } }, '/upstreams/ü'],
  [{ upstreams: { ['x'.repeat(129)]: {} } }, `/upstreams/${'x'.repeat(129)}`],
  [upstream(5), '/upstreams/web'],
  [upstream(true), '/upstreams/web'],
  [upstream({ name: 'web' }), '/upstreams/web/name'],
  [upstream({ owner: '' }), '/upstreams/web/owner'],
  [upstream({ owner: 'a\u0000' }), '/upstreams/web/owner'],
  [upstream({ zone: 'x'.repeat(256) }), '/upstreams/web/zone'],
  [upstream({ balance: 'fair' }), '/upstreams/web/balance'],
  [upstream({ balance: 'hash' }), '/upstreams/web/hash_key'],
  [upstream({ hash_key: 'uri' }), '/upstreams/web/hash_key'],
  [upstream({ hash_key: '$uri\n' }), '/upstreams/web/hash_key'],
  [upstream({ sticky: 'a=b' }), '/upstreams/web/sticky'],
  [upstream({ max_fails: -1 }), '/upstreams/web/max_fails'],
  [upstream({ max_fails: '1' }), '/upstreams/web/max_fails'],
  ['{"upstreams":{"web":{"max_fails":1e999}}}', '/upstreams/web/max_fails'],
  ['{"upstreams":{"web":{"max_fails":-1e999}}}', '/upstreams/web/max_fails'],
  [upstream({ fail_timeout: 0.0001 }), '/upstreams/web/fail_timeout'],
  [upstream({ max_tries: 0 }), '/upstreams/web/max_tries'],
  [upstream({ connect_timeout: -1 }), '/upstreams/web/connect_timeout'],
  [upstream({ send_timeout: 86401 }), '/upstreams/web/send_timeout'],
  [upstream({ read_timeout: '5s' }), '/upstreams/web/read_timeout'],
  [upstream({ peers: 5 }), '/upstreams/web/peers'],
  [upstream({ peers: { 'web:80': {} } }), '/upstreams/web/peers/web:80'],
  [upstream({ peers: { '10.0.0.1': {} } }), '/upstreams/web/peers/10.0.0.1'],
  [upstream({ peers: { '10.0.0.01:80': {} } }), '/upstreams/web/peers/10.0.0.01:80'],
  [upstream({ peers: { '10.0.0.1:0': {} } }), '/upstreams/web/peers/10.0.0.1:0'],
  [upstream({ peers: { '[FD00::7]:80': {} } }), '/upstreams/web/peers/[FD00::7]:80'],
  [upstream({ peers: { 'a/~:80': {} } }), '/upstreams/web/peers/a~1~0:80'],
  [peer(5), `/upstreams/web/peers/${key}`],
  [peer({ port: 80 }), `/upstreams/web/peers/${key}/port`],
  [peer({ weight: -1 }), `/upstreams/web/peers/${key}/weight`],
  [peer({ weight: 65536 }), `/upstreams/web/peers/${key}/weight`],
  [peer({ weight: 1.5 }), `/upstreams/web/peers/${key}/weight`],
  [peer({ weight: '2' }), `/upstreams/web/peers/${key}/weight`],
  [peer({ backup: 1 }), `/upstreams/web/peers/${key}/backup`],
  [peer({ drain: 'no' }), `/upstreams/web/peers/${key}/drain`],
  [peer({ id: '' }), `/upstreams/web/peers/${key}/id`],
  [peer({ id: 'ü'.repeat(128) }), `/upstreams/web/peers/${key}/id`],
  [peer({ zone: 5 }), `/upstreams/web/peers/${key}/zone`],
  [peer({ max_conns: -1 }), `/upstreams/web/peers/${key}/max_conns`],
  [peer({ slow_start: 1e9 }), `/upstreams/web/peers/${key}/slow_start`],
  // Arrays, which cjson cannot tell from objects, with text around that looks like more.
  ['[]', ''],
  ['[{}]', ''],
  [{ upstreams: [] }, '/upstreams'],
  [upstream([]), '/upstreams/web'],
  [upstream({ peers: [] }), '/upstreams/web/peers'],
  [
    upstream({ owner: '[{"', peers: { '[::1]:80': { id: '\\"]' }, [key]: [] } }),
    `/upstreams/web/peers/${key}`,
  ],
  [upstream({ owner: ['a'] }), '/upstreams/web/owner'],
  [peer({ weight: [1] }), `/upstreams/web/peers/${key}/weight`],
  [{ '~/"': [] }, '/~0~1"'],
];

for (const [body, pointer] of invalid) {
  const shown = typeof body === 'string' ? body : JSON.stringify(body);
  test(`422: ${shown.slice(0, 70)}`, async () => {
    for (const method of ['PUT', 'PATCH']) {
      await assertRefused(open, () => admin.send(method, all, body), { status: 422, pointer });
    }
  });
}

test('422: a whole document needs its parts, a patch does not', async () => {
  for (const [method, path, body, pointer] of [
    ['PUT', all, {}, '/upstreams'],
    ['PUT', all, upstream(null), '/upstreams/web'],
    ['PUT', all, upstream({ zone: null }), '/upstreams/web/zone'],
    ['PUT', all, upstream({ peers: null }), '/upstreams/web/peers'],
    ['PUT', all, peer(null), `/upstreams/web/peers/${key}`],
    ['PUT', all, peer({ weight: null }), `/upstreams/web/peers/${key}/weight`],
    ['PUT', web, 'null', ''],
    ['PATCH', web, 'null', ''],
  ] as const) {
    await assertRefused(open, () => admin.send(method, path, body), { status: 422, pointer });
  }
});

test('422: one upstream, with pointers into its own document', async () => {
  for (const [method, path, body, pointer] of [
    ['PUT', `${all}/a%20b`, {}, ''],
    ['PUT', web, 5, ''],
    ['PUT', web, { owner: 5 }, '/owner'],
    ['PATCH', web, { peers: { [key]: { 'a/b': 5 } } }, `/peers/${key}/a~1b`],
    ['PUT', web, { balance: 'hash' }, '/hash_key'],
    ['PATCH', web, { peers: { 'web:80': null } }, '/peers/web:80'],
  ] as const) {
    await assertRefused(open, () => admin.send(method, path, JSON.stringify(body)), {
      status: 422,
      pointer,
    });
  }
});

test('422: what a patch makes of what is there is checked too', async () => {
  await admin.write('PATCH', web, { balance: 'hash', hash_key: '$uri' });
  await assertRefused(open, () => admin.send('PATCH', web, { hash_key: null }), {
    status: 422,
    pointer: '/hash_key',
  });
  await admin.write('PATCH', web, { hash_key: null, balance: null });
});

test('422: one bad upstream among good ones stops all of them', async () => {
  const upstreams: Record<string, unknown> = {};
  for (let i = 0; i < 50; i += 1) upstreams[`good-${i}`] = { peers: {} };
  for (const bad of [{ max_fails: -1 }, { balance: 'hash' }]) {
    const [name] = Object.keys(bad);
    const body = { upstreams: { ...upstreams, bad } };
    const pointer = `/upstreams/bad/${name === 'balance' ? 'hash_key' : name}`;
    for (const method of ['PUT', 'PATCH']) {
      await assertRefused(open, () => admin.send(method, all, body), { status: 422, pointer });
    }
  }
});

test('422: one answer names all that is wrong', async () => {
  const peers = { [key]: { weight: -1 }, 'web:80': {}, '10.0.0.9:80': {} };
  for (const method of ['PUT', 'PATCH']) {
    const answer = await admin.send(method, all, upstream({ zone: 5, peers }));
    assert.equal(answer.status, 422);
    const { errors } = JSON.parse(answer.body) as { errors: { pointer: string; detail: string }[] };
    const at = '/upstreams/web';
    assert.deepEqual(
      errors.map(({ pointer }) => pointer).sort(),
      [`${at}/peers/${key}/weight`, `${at}/peers/web:80`, `${at}/zone`].sort(),
    );
    assert(errors.every(({ detail }) => detail.includes('expected')));
  }
});

test('errors show long and strange values in part, as UTF-8', async () => {
  for (const length of [70, 71, 72, 73]) {
    const owner = `${'x'.repeat(length)}${'€'.repeat(300)}`;
    const answer = await assertRefused(open, () => admin.send('PATCH', web, { owner }), {
      status: 422,
      pointer: '/owner',
      detail: /^owner is "x{70,}€*\.\.\.: expected/,
    });
    if (answer.body.includes('\ufffd')) throw new Error(answer.body);
  }
});

test('the table that all of this left behind is the first one', async () => {
  const { document } = await read(admin);
  if (Object.keys(document.upstreams).join() !== 'web') throw new Error(JSON.stringify(document));
});
