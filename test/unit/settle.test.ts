// Proves when a held observation is looked at, and who is asked about it.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { ConsulError } from '../../agent/consul/error.ts';
import { createSettler } from '../../agent/source/settle.ts';
import type { Observation } from '../../agent/state/hold.ts';
import { createState } from '../../agent/state/state.ts';

const minute = 60_000;
const nothing: Observation = { instances: 0, peers: {} };
const something: Observation = { instances: 1, peers: { '10.0.0.1:80': {} } };

interface Options {
  /** What each confirmation says, in turn. */
  confirmations?: (Observation | Error | undefined)[];
}

/** A settler of an upstream `web` with a peer, that asks as told. The time is faked. */
function start(t: TestContext, { confirmations = [] }: Options) {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let time = 0;
  let asked = 0;
  const lines: string[] = [];
  const say = (_: unknown, line: string) => lines.push(line);
  const state = createState(() => {});
  state.declare(new Map([['web', { origin: 'test', settings: {}, holdFor: minute }]]), true);
  state.observe('web', something, 0);
  const settler = createSettler({
    state,
    async confirm() {
      const said = confirmations[asked];
      asked += 1;
      if (said instanceof Error) throw said;
      return said;
    },
    log: { debug() {}, info() {}, warn: say, error: say },
    now: () => time,
  });
  t.after(() => settler.stop());
  return {
    state,
    settler,
    lines,
    asked: () => asked,
    /** Lets time go by, as long as there is a timer to wake for. @returns how often one woke us */
    async pass(ms: number) {
      const due = t.mock.method(state, 'due');
      for (const until = time + ms; time < until; ) {
        time += 500;
        t.mock.timers.tick(500);
        await new Promise((resolve) => setImmediate(resolve));
      }
      due.mock.restore();
      return due.mock.callCount();
    },
    observe(observation: Observation) {
      state.observe('web', observation, time);
      settler.settle();
    },
    peers: () => Object.keys(state.get('web')?.peers ?? {}),
  };
}

test('what is held is looked at each second, until it is confirmed; then nothing wakes', async (t) => {
  const it = start(t, { confirmations: [nothing] });
  it.observe(nothing);
  assert.equal(await it.pass(minute - 1000), 59);
  assert.equal(it.asked(), 0);
  await it.pass(2000);
  assert.equal(it.asked(), 1);
  assert.deepEqual(it.peers(), []);
  assert.equal(await it.pass(10 * minute), 0);
});

test('nothing wakes while nothing is held', async (t) => {
  const it = start(t, {});
  it.observe(something);
  assert.equal(await it.pass(10 * minute), 0);
  it.observe(nothing);
  it.observe(something);
  assert.ok((await it.pass(10 * minute)) <= 1);
});

test('what cannot be confirmed is said once, tried again, and stays', async (t) => {
  const refused = new ConsulError('consul/blind', 'the token may not read');
  const it = start(t, { confirmations: [refused, refused, nothing] });
  it.observe(nothing);
  await it.pass(minute + 500);
  assert.deepEqual(it.lines, ['web: the token may not read: its last peers stay']);
  assert.deepEqual(it.peers(), ['10.0.0.1:80']);
  await it.pass(minute);
  assert.equal(it.asked(), 3);
  assert.equal(it.lines.length, 1);
  assert.deepEqual(it.peers(), []);
});

test('a fault of ours is not laid to Consul, and what is held stays', async (t) => {
  const it = start(t, { confirmations: [new TypeError('x is not a function'), nothing] });
  it.observe(nothing);
  await it.pass(minute + 500);
  assert.deepEqual(it.lines, ['web: a fault of the agent: x is not a function: its peers stay']);
  assert.deepEqual(it.peers(), ['10.0.0.1:80']);
  await it.pass(minute);
  assert.deepEqual(it.peers(), []);
});

test('what was said of a source that is not followed any more is of no matter', async (t) => {
  const it = start(t, { confirmations: [undefined, nothing] });
  it.observe(nothing);
  await it.pass(minute + 500);
  assert.deepEqual([it.asked(), it.peers()], [1, ['10.0.0.1:80']]);
  await it.pass(1000);
  assert.deepEqual([it.asked(), it.peers()], [2, []]);
});
