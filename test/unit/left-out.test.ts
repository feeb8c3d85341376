// A target that refuses some peers and settings, whatever else it is sent: in
// the end it has exactly the rest, in few requests, and is not asked again
// until something is another or its time has come.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pino } from 'pino';
import type { AdminClient } from '../../agent/openresty/admin.ts';
import { AdminError } from '../../agent/openresty/error.ts';
import type { Fault } from '../../agent/openresty/left-out.ts';
import { type Pushed, push } from '../../agent/openresty/push.ts';
import { createRefusals } from '../../agent/openresty/refusals.ts';
import type { Document, Peer, Upstream } from '../../agent/state/document.ts';
import { applyToDocument, type DocumentPatch, diffDocuments } from '../../agent/state/parts.ts';

const { signal } = new AbortController();

function escaped(step: string): string {
  return step.replaceAll('~', '~0').replaceAll('/', '~1');
}

interface Answers {
  /** What is wrong with a peer; undefined: nothing. A string beginning with `/` is a field of it. */
  isBad: (address: string) => boolean;
  isBadZone: (zone: unknown) => boolean;
  /** How many it names at once; 0: it gives no pointer. */
  names: number;
}

function faultsOf(patch: DocumentPatch, { isBad, isBadZone }: Answers): Fault[] {
  const faults: Fault[] = [];
  for (const [name, change] of Object.entries(patch.upstreams)) {
    const at = `/upstreams/${escaped(name)}`;
    if (isBadZone(change?.zone)) faults.push({ pointer: `${at}/zone`, detail: 'bad' });
    for (const [address, peer] of Object.entries(change?.peers ?? {})) {
      if (peer === null || !isBad(address)) continue;
      const deeper = 'weight' in peer ? '/weight' : '';
      faults.push({ pointer: `${at}/peers/${escaped(address)}${deeper}`, detail: 'bad' });
    }
  }
  return faults;
}

function serves(upstream: Upstream | undefined): boolean {
  return Object.values(upstream?.peers ?? {}).some(({ weight }: Peer) => weight !== 0);
}

class Target {
  requests = 0;
  has: Document;
  /** What it should come to. */
  end: Document | undefined;
  readonly #answers: Answers;

  constructor(has: Document, answers: Answers) {
    this.has = has;
    this.#answers = answers;
  }

  async patch(patch: DocumentPatch): Promise<string> {
    this.requests += 1;
    const faults = faultsOf(patch, this.#answers);
    if (faults.length > 0) {
      throw new AdminError('openresty/invalid', '422', {
        faults: faults.slice(0, this.#answers.names),
      });
    }
    const next = applyToDocument(this.has, patch);
    for (const name of Object.keys(patch.upstreams)) {
      if (serves(this.end?.upstreams[name]) && serves(this.has.upstreams[name])) {
        assert(serves(next.upstreams[name]), `${name} was emptied`);
      }
    }
    this.has = next;
    return `"x.${this.requests}"`;
  }

  push(patch: DocumentPatch): Promise<Pushed> {
    const mirror = { document: this.has, etag: '"x.0"' };
    return push(this as unknown as AdminClient, mirror, patch, signal);
  }
}

const plain = { noNullPrototype: true };
const peer = fc.record({ weight: fc.nat({ max: 2 }), id: fc.constantFrom('x', 'y') }, {
  ...plain,
  requiredKeys: [],
} as const);
const address = fc.nat({ max: 15 }).map((n) => `10.0.0.${n}:80`);
const upstream = fc
  .record(
    { zone: fc.constantFrom('a', 'bad'), peers: fc.dictionary(address, peer, plain) },
    { ...plain, requiredKeys: ['peers'] },
  )
  .map((rest) => ({ owner: 'us', ...rest }));
const document: fc.Arbitrary<Document> = fc.record(
  { upstreams: fc.dictionary(fc.constantFrom('web', 'api', 'a~/b'), upstream, plain) },
  plain,
);

/** What a target comes to that will not have some of it. */
function goodOf(from: Document, to: Document, isBad: Answers['isBad']): Document {
  const upstreams = Object.entries(to.upstreams).flatMap(([name, want]) => {
    const has = from.upstreams[name];
    const isRefused = want.zone === 'bad' && has?.zone !== 'bad';
    if (isRefused && has === undefined) return [];
    const { peers: had, ...settings } = isRefused && has !== undefined ? has : want;
    const peers = Object.entries(want.peers).flatMap(([key, wanted]) => {
      const old = has?.peers[key];
      const isSame = diffDocuments(one(old), one(wanted)) === undefined;
      if (!isBad(key) || isSame) return [[key, wanted] as const];
      return old === undefined ? [] : [[key, old] as const];
    });
    return [[name, { ...settings, peers: Object.fromEntries(peers) }] as const];
  });
  return { upstreams: Object.fromEntries(upstreams) };
}

function one(peer: Peer | undefined): Document {
  return { upstreams: { web: { peers: peer === undefined ? {} : { a: peer } } } };
}

test('it has exactly what is good, and is not asked twice', async () => {
  const bad = fc.uniqueArray(address);
  await fc.assert(
    fc.asyncProperty(document, document, bad, fc.constantFrom(1, 1000), async (from, to, no, n) => {
      const isBad = (key: string) => no.includes(key);
      const answers = { isBad, isBadZone: (zone: unknown) => zone === 'bad', names: n };
      const target = new Target(from, answers);
      target.end = goodOf(from, to, isBad);
      const patch = diffDocuments(from, to);
      if (patch === undefined) return;
      const result = await target.push(patch);
      assert.deepEqual(target.has, target.end);
      assert.deepEqual(result.mirror.document, target.has);
      const refused = faultsOf(patch, answers).length;
      const upstreams = Object.keys(patch.upstreams).length;
      // New upstreams whose settings are refused go one by one.
      assert(target.requests <= 2 + upstreams * 2 + (n === 1 ? refused * 2 : 0));

      const refusals = createRefusals('x', pino({ level: 'silent' }));
      refusals.note(result, patch);
      const left = diffDocuments(target.has, to);
      assert.equal(refusals.due(left), undefined);
    }),
    { numRuns: 1000, includeErrorInReport: true },
  );
});

test('what is another is sent at once, the rest when its time has come', async (t) => {
  t.mock.timers.enable({ apis: ['Date'] });
  const isBad = (key: string) => key.startsWith('10.');
  const target = new Target({ upstreams: {} }, { isBad, isBadZone: () => false, names: 1000 });
  const lines: string[] = [];
  const log = pino({ level: 'info' }, { write: (line) => lines.push(JSON.parse(line).msg) });
  const refusals = createRefusals('x', log);
  const want: Document = { upstreams: { web: { owner: 'us', peers: {} } } };
  const peers = want.upstreams.web?.peers ?? {};
  async function turn(): Promise<number> {
    const before = target.requests;
    const patch = refusals.due(diffDocuments(target.has, want));
    if (patch !== undefined) refusals.note(await target.push(patch), patch);
    return target.requests - before;
  }
  for (let i = 0; i < 1500; i += 1) {
    peers[`10.0.${i >> 8}.${i & 255}:80`] = {};
    peers[`127.0.${i >> 8}.${i & 255}:80`] = {};
  }
  assert.ok((await turn()) <= 8);
  assert.equal(Object.keys(target.has.upstreams.web?.peers ?? {}).length, 1500);
  assert.equal(await turn(), 0);

  delete peers['127.0.0.0:80'];
  assert.equal(await turn(), 1);
  peers['10.0.0.1:80'] = { weight: 2 };
  assert.equal(await turn(), 1);
  assert.equal(await turn(), 0);

  let requests = 0;
  for (let second = 0; second < 600; second += 1) {
    t.mock.timers.tick(1000);
    requests += await turn();
  }
  // Two parts, each half a minute at most, on average every 16 s.
  assert.ok(requests > 2 && requests < 300, `${requests} requests in ten minutes`);
  assert.equal(lines.length, 1, lines.join('\n'));
  assert.match(lines[0] ?? '', /^web: left out by .* and 1490 more$/);
  assert.ok(Object.keys(peers).length > 2000);

  for (const key of Object.keys(peers)) if (isBad(key)) delete peers[key];
  assert.equal(await turn(), 0);
  assert.deepEqual(lines.slice(1), ['x: web is whole again']);
});

test('a target that names nothing refuses the upstream alone', async () => {
  const isBad = (key: string) => key === '10.0.0.1:80';
  const target = new Target({ upstreams: {} }, { isBad, isBadZone: () => false, names: 0 });
  const good = { owner: 'us', peers: { '10.0.0.2:80': {} } };
  const bad = { owner: 'us', peers: { '10.0.0.1:80': {}, '10.0.0.3:80': {} } };
  const result = await target.push({ upstreams: { good, bad } });
  assert.deepEqual(target.has, { upstreams: { good } });
  assert.deepEqual([...result.refused.keys()], ['bad']);
  assert.deepEqual([...result.leftOut.keys()], []);
});
