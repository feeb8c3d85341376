// Proves that a snapshot which cannot be loaded as a whole is loaded in part:
// what does not fit, or is bad, is left out and said, and the rest serves.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { test } from 'node:test';
import {
  assertServing,
  client,
  type Document,
  deadPeer,
  deadPeers,
  type Openresty,
  read,
  restart,
  serve,
  snapshot,
  startOpenresty,
} from './openresty.ts';

const all = '/v1/upstreams';

/** What the log of a start says of Reloadless, without what nginx puts around it. */
function said(log: string): string[] {
  // The log has stderr too, where nginx says the same without the time.
  const lines = log.split('\n').filter((line) => /^\d.*reloadless: /.test(line));
  return lines.map((line) => line.replace(/^.*?reloadless: /, '').replace(/, context: ngx.*$/, ''));
}

function count({ upstreams }: Document): number {
  return Object.values(upstreams).reduce((sum, { peers }) => sum + Object.keys(peers).length, 0);
}

/** Asserts that each upstream of the file has peers, all of them from the file. */
async function assertEachServes({ admin }: Openresty, file: Document): Promise<Document> {
  const { document } = await read(admin);
  assert.deepEqual(Object.keys(document.upstreams).sort(), Object.keys(file.upstreams).sort());
  for (const [name, { peers }] of Object.entries(document.upstreams)) {
    const given = file.upstreams[name]?.peers ?? {};
    assert.ok(Object.keys(peers).length > 0, `${name} has no peer`);
    for (const [key, fields] of Object.entries(peers)) assert.deepEqual(fields, given[key]);
  }
  return document;
}

test('a snapshot that does not fit loads peers of every upstream, as many as fit', async (t) => {
  const open = await startOpenresty({ dict: '256k' });
  const { admin, backend } = open;
  await serve(open);
  const name = (i: number) => `service-${i}`;
  for (let i = 0; ; i += 1) {
    const upstreams = { [name(i)]: { peers: deadPeers(10) } };
    if ((await admin.send('PATCH', all, { upstreams })).status === 507) break;
  }
  const { document: full } = await read(admin);
  const fitted = count(full);
  const services = Object.keys(full.upstreams);

  // By the upstreams that are in the file: those that served, and what did not fit.
  const cases: Record<string, Document['upstreams']> = {
    'one more': { 'a-new': { peers: deadPeers(10) } },
    'many more': Object.fromEntries(services.map((_, i) => [`new-${i}`, { peers: deadPeers(10) }])),
    'one that grew': { [name(0)]: { peers: deadPeers(20_000) } },
    'all that grew': Object.fromEntries(
      services.map((service) => [service, { peers: { [backend.address]: {}, ...deadPeers(30) } }]),
    ),
  } as Record<string, Document['upstreams']>;
  for (const [what, more] of Object.entries(cases)) {
    const file = { upstreams: { ...full.upstreams, ...more } };
    const log = said(await restart(open, snapshot(file)));
    const document = await assertEachServes(open, file);
    const loaded = count(document);
    // nginx's dict rounds texts up: five peers may take the room of eight.
    assert.ok(loaded > 0.4 * fitted, `${what}: ${loaded} peers, ${fitted} did fit`);
    t.diagnostic(
      `${fitted} peers of ${services.length} upstreams fitted; ${what}: ${count(file)} of ` +
        `${Object.keys(file.upstreams).length} asked, ${loaded} serve, the fewest of one ` +
        `${Math.min(...Object.values(document.upstreams).map(({ peers }) => Object.keys(peers).length))}`,
    );
    await assertServing(open);
    assert.match(log.join('\n'), /the shared dict is full/, what);
    assert.match(
      log.join('\n'),
      new RegExp(`${count(file) - loaded} of ${count(file)} peers are left out`),
      what,
    );
    assert.match(log.join('\n'), /about \d+k more are needed/);
    assert.ok(log.length <= 13, log.join('\n'));

    // It is a table as any other: what makes room still works.
    const { etag } = await read(admin);
    await admin.write(
      'PATCH',
      `${all}/web`,
      { peers: { [backend.address]: { weight: 3 } } },
      {
        'if-match': etag,
      },
    );
  }
});

test('of an upstream that does not fit, peers that take new traffic come first', async () => {
  const open = await startOpenresty({ dict: '256k' });
  const { backend } = open;
  const web = {
    peers: {
      ...deadPeers(10_000, (i) => (i % 2 === 0 ? { weight: 0 } : { drain: true })),
      '200.0.0.1:80': { backup: true },
      [backend.address]: {},
    },
  };
  await restart(open, snapshot({ upstreams: { web } }));
  const { document } = await read(open.admin);
  const peers = document.upstreams.web?.peers ?? {};
  assert.ok(Object.keys(peers).length > 100);
  assert.deepEqual([peers[backend.address], peers['200.0.0.1:80']], [{}, { backup: true }]);
  await assertServing(open);
});

test('a dict too small for one peer of each upstream has as many upstreams as fit', async () => {
  const open = await startOpenresty({ dict: '256k' });
  const upstreams: Document['upstreams'] = {};
  for (let i = 0; i < 3000; i += 1) upstreams[`service-${i}`] = { peers: { [deadPeer(i)]: {} } };
  upstreams.none = { peers: {} };
  const log = said(await restart(open, snapshot({ upstreams })));
  const { document } = await read(open.admin);
  assert.ok(Object.keys(document.upstreams).length > 300);
  assert.ok(count(document) >= Object.keys(document.upstreams).length - 1);
  const lines = log.filter((line) => /is left out|are left out/.test(line));
  assert.ok(lines.length > 5 && lines.length <= 13, log.join('\n'));
});

test('a bad peer and a bad upstream are left out, alone, and said', async () => {
  const open = await startOpenresty({ init: 'allow = { "127.0.0.0/8" },' });
  const good = { [open.backend.address]: { weight: 2 } };
  const upstreams = {
    web: { owner: 'reloadless', peers: { ...good, '10.0.0.1:80': {} } },
    api: {
      peers: {
        ...good,
        '127.0.0.9:1': { wieght: 2 },
        '127.0.0.9:2': { weight: -1 },
        '127.0.0.9:3': null,
        'localhost:80': {},
      },
    },
    foreign: { peers: { '10.0.0.2:80': {} } },
    hash: { balance: 'hash', peers: good },
    odd: { balance: 'odd', peers: good },
    nothing: null,
    peerless: { peers: null },
    'a b': { peers: good },
  };
  const log = said(await restart(open, snapshot({ upstreams })));
  assert.deepEqual((await read(open.admin)).document.upstreams, {
    web: { owner: 'reloadless', peers: good },
    api: { peers: good },
    foreign: { peers: {} },
  });
  await assertServing(open);
  const lines = log.filter((line) => line.includes(': left out: ')).sort();
  const about = (at: string) => lines.find((line) => line.includes(`left out: /upstreams/${at} `));
  assert.match(
    about('web/peers/10.0.0.1:80') ?? '',
    /the address is "10\.0\.0\.1:80": expected an address within 127\.0\.0\.0\/8$/,
  );
  assert.match(about('api/peers/127.0.0.9:1/wieght') ?? '', /unknown field "wieght"/);
  // ten of them, then how many more
  assert.equal(lines.length, 10);
  assert.match(log.join('\n'), /: 1 more left out/);
});

test('a thousand bad peers are eleven lines', async () => {
  const open = await startOpenresty({ init: 'allow = { "127.0.0.0/8" },' });
  const peers: Record<string, object> = { [open.backend.address]: {} };
  for (let i = 0; i < 1000; i += 1) peers[`10.0.${i >> 8}.${i & 255}:80`] = {};
  const log = said(await restart(open, snapshot({ upstreams: { web: { peers } } })));
  assert.equal(log.filter((line) => line.includes(': left out: ')).length, 10);
  assert.match(log.join('\n'), /: 990 more left out/);
  await assertServing(open);
});

test('what is no regular file in the place of the snapshot stops nothing, and is said', async () => {
  const open = await startOpenresty();
  const { nginx } = open;
  const place: [string, () => void, RegExp][] = [
    ['a FIFO', () => execFileSync('mkfifo', [nginx.snapshot]), /it is empty/],
    ['a device', () => execFileSync('ln', ['-s', '/dev/zero', nginx.snapshot]), /more than \d+/],
    ['a folder', () => execFileSync('mkdir', [nginx.snapshot]), /directory/],
  ];
  for (const [what, put, why] of place) {
    await nginx.stop();
    rmSync(nginx.snapshot, { recursive: true, force: true });
    put();
    const { length } = nginx.errorLog;
    await nginx.up();
    const log = said(nginx.errorLog.slice(length)).join('\n');
    assert.match(log, /snapshot .* is not used: /, what);
    assert.match(log, why);
    const admin = client(`127.0.0.1:${nginx.adminPort}`);
    assert.deepEqual((await read(admin)).document, { upstreams: {} });
    await serve({ ...open, admin });
  }
  await nginx.stop();
  rmSync(nginx.snapshot, { recursive: true });
});

interface Case {
  name: string;
  /** The file, each character a byte. */
  content: string;
  /** What is read of it; absent when it is refused as a whole. */
  document?: Document;
}

test('the shared cases', async () => {
  const cases: Case[] = JSON.parse(readFileSync('test/cases/snapshots.json', 'utf8'));
  const open = await startOpenresty();
  for (const { name, content, document } of cases) {
    const log = await restart(open, Buffer.from(content, 'latin1'));
    assert.equal(/is not used/.test(log), document === undefined, `${name}: ${log}`);
    const table = await read(open.admin);
    assert.deepEqual(table.document, document ?? { upstreams: {} }, name);
  }
});
