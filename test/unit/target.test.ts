// Proves, by counting, that a change costs what changed and that an idle look at
// a target costs the same, however many upstreams there are.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import type { AdminClient } from '../../agent/openresty/admin.ts';
import { startTarget } from '../../agent/openresty/target.ts';
import type { Document, Upstream } from '../../agent/state/document.ts';
import type { DocumentPatch } from '../../agent/state/parts.ts';
import { createState, type State } from '../../agent/state/state.ts';
import { until } from '../stack/process.ts';

const us = { owner: 'us', identity: { id: 'me', host: 'here', pid: 1, since: 'now' } };

/** The names of the upstreams that are looked at; listing all of them is `*`. */
type Looks = Map<string, number>;

function count(looks: Looks, name: string | symbol): void {
  looks.set(String(name), (looks.get(String(name)) ?? 0) + 1);
}

/** A target of n upstreams whose document counts how often it is looked into. */
async function start(t: TestContext, n: number) {
  const looks: Looks = new Map();
  const names = Array.from({ length: n }, (_, i) => `u${i}`);
  const peers = (weight: number) => ({ '10.0.0.1:80': { weight } });
  const upstreams: Record<string, Upstream> = {};
  for (const name of names) upstreams[name] = { owner: 'us', peers: peers(1) };
  const counted: Document = {
    upstreams: new Proxy(upstreams, {
      getOwnPropertyDescriptor(target, name) {
        count(looks, name);
        return Reflect.getOwnPropertyDescriptor(target, name);
      },
      ownKeys(target) {
        count(looks, '*');
        return Reflect.ownKeys(target);
      },
    }),
  };

  const patches: DocumentPatch[] = [];
  let observed = 0;
  /** When the lease was taken, how many changes had not been sent. */
  const leases: number[] = [];
  /** What the target was asked, in order, but for patches. */
  const calls: string[] = [];
  const etag = () => `"i.${patches.length}"`;
  let gets = 0;
  const client: Partial<AdminClient> = {
    name: 'a target',
    async get(known) {
      gets += 1;
      calls.push('get');
      return known === undefined ? { document: counted, etag: etag() } : undefined;
    },
    async patch(patch) {
      patches.push(patch);
      return etag();
    },
    async takeLease() {
      leases.push(observed - patches.length);
      calls.push('lease');
      return { etag: etag() };
    },
    warning: () => undefined,
    dropLease: async () => {},
    close() {},
  };
  const state: State = createState(({ upstream, kind }) => {
    if (kind === 'observed') target.changed(upstream);
  });
  const listing: State = {
    ...state,
    names() {
      count(looks, '*');
      return state.names();
    },
  };
  state.declare(
    new Map(names.map((name) => [name, { origin: 'test', settings: {}, holdFor: 0 }])),
    true,
  );
  const target = startTarget({
    client: client as AdminClient,
    state: listing,
    learnt() {},
    who: () => us,
    gained() {},
    applied() {},
    log: pino({ level: 'silent' }),
  });
  t.after(() => target.stop());
  await until('the first look', () => gets === 1 && (looks.get('*') ?? 0) > 0);
  await new Promise((resolve) => setTimeout(resolve, 20));
  looks.clear();
  const observe = (name: string, weight: number) => {
    observed += 1;
    state.observe(name, { instances: 1, peers: peers(weight) }, 0);
  };
  return { looks, patches, leases, calls, observe, state, upstreams, gets: () => gets };
}

test('a change is compared and sent alone, whatever else there is', async (t) => {
  const found: Looks[] = [];
  for (const n of [10, 2000]) {
    const { looks, patches, observe } = await start(t, n);
    observe('u7', 2);
    await until('it is sent', () => patches.length === 1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    assert.deepEqual(patches, [{ upstreams: { u7: { peers: { '10.0.0.1:80': { weight: 2 } } } } }]);
    observe('u7', 3);
    await until('the next is sent', () => patches.length === 2);
    found.push(new Map(looks));
  }
  assert.deepEqual([...(found[0]?.keys() ?? [])], ['u7']);
  assert.deepEqual(found[1], found[0]);
});

test('a look at a target where nothing has changed looks at no upstream', async (t) => {
  const { looks, gets } = await start(t, 50);
  await until('two looks', () => gets() >= 3);
  assert.deepEqual([...looks.keys()], []);
});

test('what targets have as they should is kept once', async (t) => {
  const n = 3;
  const { observe, upstreams, state, patches } = await start(t, n);
  for (let i = 0; i < n; i += 1) observe(`u${i}`, 1);
  await until('none differs', () => state.get('u2')?.live);
  await until('all share', () =>
    Object.entries(upstreams).every(([name, { peers }]) => peers === state.get(name)?.peers),
  );
  assert.deepEqual(patches, []);
});

test('a change does not wait for a renewal of the lease', async (t) => {
  const { patches, leases, observe } = await start(t, 1);
  await until('the lease is renewed', async () => {
    observe('u0', 2 + patches.length);
    return leases.length > 1;
  });
  assert.deepEqual(leases, [0, 0]);
});

test('a renewal of the lease is a look, too', async (t) => {
  const { leases, calls } = await start(t, 1);
  await until('the lease is renewed twice', () => leases.length > 2);
  const last = calls.lastIndexOf('lease');
  const before = calls.lastIndexOf('lease', last - 1);
  assert.equal(calls.slice(before + 1, last).length, 2, calls.join(' '));
});
