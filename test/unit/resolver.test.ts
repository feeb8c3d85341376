import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { createResolver, type Resolver } from '../../agent/source/health/resolver.ts';

interface Resolving {
  resolver: Resolver;
  /** The names that are being looked up, in order. */
  asked: string[];
  /** Ends the oldest look-up of a name. */
  answer(name: string, ...addresses: string[]): Promise<void>;
  miss(name: string, why: string): Promise<void>;
  changes: number;
  failures: string[];
}

type End = (addresses: string[] | Error) => void;

function start(t: TestContext): Resolving {
  const open: [string, End][] = [];
  async function end(name: string, result: string[] | Error): Promise<void> {
    const found = open.findIndex(([asked]) => asked === name);
    const [entry] = open.splice(found, 1);
    assert(found >= 0 && entry !== undefined, `${name} is not being looked up`);
    entry[1](result);
    await new Promise(setImmediate);
  }
  const resolving: Resolving = {
    resolver: createResolver({
      lookup: (name) =>
        new Promise((resolve, reject) => {
          open.push([
            name,
            (result) => (result instanceof Error ? reject(result) : resolve(result)),
          ]);
        }),
      changed: () => {
        resolving.changes += 1;
      },
      failed: (name, error, { length }) =>
        resolving.failures.push(`${name} (has ${length}): ${error.message}`),
    }),
    get asked() {
      return open.map(([name]) => name);
    },
    answer: (name, ...addresses) => end(name, addresses),
    miss: (name, why) => end(name, new Error(why)),
    changes: 0,
    failures: [],
  };
  t.after(() => resolving.resolver.resolve([]));
  return resolving;
}

function known(resolving: Resolving, ...names: string[]) {
  const { addresses, awaited } = resolving.resolver.resolve(names);
  return { ...Object.fromEntries(addresses), awaited };
}

test('a new name is awaited and looked up beside; its addresses are announced', async (t) => {
  const it = start(t);
  assert.deepEqual(known(it, 'a', 'b'), { a: [], b: [], awaited: ['a', 'b'] });
  assert.deepEqual(it.asked, ['a', 'b']);
  await it.answer('b', '10.0.0.2', '10.0.0.1');
  assert.equal(it.changes, 1);
  assert.deepEqual(known(it, 'a', 'b'), { a: [], b: ['10.0.0.1', '10.0.0.2'], awaited: ['a'] });
  assert.deepEqual(it.asked, ['a'], 'it is not looked up again before a refresh');
});

test('a name that is not found is said once and awaited no more', async (t) => {
  const it = start(t);
  known(it, 'a');
  await it.miss('a', 'no answer');
  assert.equal(it.changes, 1, 'who waits for it hears that it is over');
  assert.deepEqual(known(it, 'a'), { a: [], awaited: [] });
  it.resolver.refresh();
  await it.miss('a', 'no answer');
  assert.deepEqual(it.failures, ['a (has 0): no answer']);
  it.resolver.refresh();
  await it.answer('a', '10.0.0.1');
  it.resolver.refresh();
  await it.miss('a', 'again');
  assert.deepEqual(it.failures, ['a (has 0): no answer', 'a (has 1): again']);
});

test('a refresh announces other addresses only, and a name keeps those it had', async (t) => {
  const it = start(t);
  known(it, 'a');
  await it.answer('a', '10.0.0.1', '10.0.0.2');
  assert.equal(it.changes, 1);
  it.resolver.refresh();
  it.resolver.refresh();
  assert.deepEqual(it.asked, ['a'], 'one look-up of a name at once');
  assert.deepEqual(known(it, 'a'), { a: ['10.0.0.1', '10.0.0.2'], awaited: [] });
  await it.answer('a', '10.0.0.2', '10.0.0.1');
  assert.equal(it.changes, 1);
  it.resolver.refresh();
  await it.miss('a', 'no answer');
  assert.equal(it.changes, 1);
  assert.deepEqual(known(it, 'a'), { a: ['10.0.0.1', '10.0.0.2'], awaited: [] });
  it.resolver.refresh();
  await it.answer('a', '10.0.0.3');
  assert.equal(it.changes, 2);
  assert.deepEqual(known(it, 'a'), { a: ['10.0.0.3'], awaited: [] });
});

test('a name has its earlier addresses until it is looked up', async (t) => {
  const it = start(t);
  const earlier = new Map([['a', ['10.0.0.9']]]);
  const { addresses, awaited } = it.resolver.resolve(['a', 'b'], earlier);
  assert.deepEqual([addresses.get('a'), awaited], [['10.0.0.9'], ['b']]);
  await it.miss('a', 'no answer');
  assert.deepEqual(it.failures, ['a (has 1): no answer']);
  assert.deepEqual(known(it, 'a', 'b'), { a: ['10.0.0.9'], b: [], awaited: ['b'] });
  it.resolver.refresh();
  await it.answer('a', '10.0.0.1');
  assert.deepEqual(known(it, 'a', 'b'), { a: ['10.0.0.1'], b: [], awaited: ['b'] });
});

test('a name that is wanted no more is forgotten, its late answer too', async (t) => {
  const it = start(t);
  known(it, 'a', 'b');
  assert.deepEqual(known(it, 'b'), { b: [], awaited: ['b'] });
  await it.answer('a', '10.0.0.1');
  assert.deepEqual([it.changes, it.failures], [0, []]);
  assert.deepEqual(known(it, 'a'), { a: [], awaited: ['a'] });
});

test('a bounded number of names is looked up at once, and all come in turn', async (t) => {
  const it = start(t);
  const names = Array.from({ length: 100 }, (_, i) => `n${i}`);
  known(it, ...names);
  let most = 0;
  for (let i = 0; i < 100; i += 1) {
    most = Math.max(most, it.asked.length);
    await it.answer(it.asked[0] ?? '', '10.0.0.1');
  }
  assert.equal(most, 32);
  assert.equal(it.changes, 100);
});

test('names that are forgotten while they wait for their turn are not looked up', async (t) => {
  const it = start(t);
  const names = Array.from({ length: 40 }, (_, i) => `n${i}`);
  known(it, ...names);
  known(it, 'n0');
  for (let i = 0; i < 32; i += 1) await it.answer(`n${i}`, '10.0.0.1');
  assert.deepEqual(it.asked, []);
});

test('addresses with a zone are no use', async (t) => {
  const it = start(t);
  known(it, 'a', 'b');
  await it.answer('a', 'fe80::1%eth0', 'fd00::1');
  await it.answer('b', 'fe80::1%eth0');
  assert.deepEqual(known(it, 'a', 'b'), { a: ['fd00::1'], b: [], awaited: [] });
  assert.deepEqual(it.failures, ['b (has 0): it has only addresses with a zone']);
});

test('it is settled when the first look-ups have ended', async (t) => {
  const it = start(t);
  known(it, 'a', 'b');
  let settled = false;
  const done = it.resolver.settled().then(() => {
    settled = true;
  });
  await it.answer('a', '10.0.0.1');
  assert.equal(settled, false);
  await it.miss('b', 'no answer');
  await done;
});

test('names are looked up again after 30 s; where there is none, nothing wakes', async (t) => {
  const began = t.mock.method(globalThis, 'setInterval');
  const ended = t.mock.method(globalThis, 'clearInterval');
  const it = start(t);
  known(it);
  assert.equal(began.mock.callCount(), 0);
  known(it, 'a.test');
  known(it, 'a.test', 'b.test');
  await it.answer('a.test', '10.0.0.1');
  await it.answer('b.test', '10.0.0.2');
  assert.equal(began.mock.callCount(), 1);
  const [call] = began.mock.calls;
  assert(call !== undefined);
  const [refresh, ms] = call.arguments;
  assert.equal(ms, 30_000);
  refresh();
  assert.deepEqual(it.asked, ['a.test', 'b.test']);
  await it.answer('a.test', '10.0.0.1');
  await it.answer('b.test', '10.0.0.2');
  known(it);
  assert.equal(ended.mock.calls.at(-1)?.arguments[0], call.result);
});
