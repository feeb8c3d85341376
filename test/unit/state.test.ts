// Proves what the state believes of what a source says, and that it names each change.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Peers } from '../../agent/state/document.ts';
import { type Change, createState, type Declared, type State } from '../../agent/state/state.ts';

const one: Peers = { '10.0.0.1:80': { weight: 1 } };
const two: Peers = { ...one, '10.0.0.2:80': { weight: 1 } };
const minute = 60_000;

function declared(names: string[], holdFor = minute): Map<string, Declared> {
  return new Map(names.map((name) => [name, { origin: 'test', settings: {}, holdFor }]));
}

function tracking(...names: string[]): State & { happened: Change[] } {
  const happened: Change[] = [];
  const state = createState((change) => happened.push(change));
  state.declare(declared(names), true);
  happened.length = 0;
  return Object.assign(state, { happened });
}

function answered(state: State, name: string, instances: number, peers: Peers, now: number) {
  return state.observe(name, { instances, peers }, now);
}

/** The source says once more, surely, what is held. */
function confirm(state: State, name: string, now: number) {
  const held = state.get(name)?.held;
  if (held !== undefined) state.confirm(name, held, held.observation, now);
}

function peers(state: State, name: string): Peers | undefined {
  return state.get(name)?.peers;
}

test('an answer with instances counts at once, even if none of them serves', () => {
  const state = tracking('web');
  answered(state, 'web', 2, two, 0);
  assert.deepEqual(peers(state, 'web'), two);
  answered(state, 'web', 2, one, 1);
  assert.deepEqual(peers(state, 'web'), one);
  answered(state, 'web', 2, {}, 2);
  assert.deepEqual(peers(state, 'web'), {});
});

test('an answer without instances keeps the peers until they are due', () => {
  const state = tracking('web');
  answered(state, 'web', 2, two, 0);
  answered(state, 'web', 0, {}, 1000);
  answered(state, 'web', 0, {}, 30_000);
  assert.deepEqual(peers(state, 'web'), two);
  assert.deepEqual(state.due(60_999), []);
  assert.deepEqual(state.due(61_000), ['web']);
  confirm(state, 'web', 61_000);
  assert.deepEqual(peers(state, 'web'), {});
  assert.deepEqual(state.due(99_999), []);
});

test('an instance that comes back ends the hold', () => {
  const state = tracking('web');
  answered(state, 'web', 2, two, 0);
  answered(state, 'web', 0, {}, 1000);
  answered(state, 'web', 1, one, 2000);
  assert.deepEqual(peers(state, 'web'), one);
  assert.deepEqual(state.due(1e9), []);
  confirm(state, 'web', 61_000);
  assert.deepEqual(peers(state, 'web'), one);
});

test('a hold of 0 is due at once', () => {
  const state = tracking();
  state.declare(declared(['web'], 0), true);
  answered(state, 'web', 1, one, 5);
  answered(state, 'web', 0, {}, 5);
  assert.deepEqual(state.due(5), ['web']);
});

test('peers from a snapshot are held too, and Consul goes before them', () => {
  const state = tracking('web');
  state.remember('web', { peers: one });
  answered(state, 'web', 0, {}, 0);
  assert.deepEqual(peers(state, 'web'), one);
  answered(state, 'web', 2, two, 1);
  state.remember('web', { peers: one });
  assert.deepEqual(peers(state, 'web'), two);
});

test('one of several that is empty is believed, when another shows an instance', () => {
  const state = tracking('web', 'api');
  answered(state, 'web', 1, one, 0);
  answered(state, 'api', 1, one, 0);
  answered(state, 'web', 0, {}, 1000);
  assert.deepEqual(state.due(61_000), ['web']);
});

test('when all of several are empty none is believed, until one shows an instance again', () => {
  const state = tracking('web', 'api', 'new');
  answered(state, 'web', 1, one, 0);
  answered(state, 'api', 1, one, 0);
  answered(state, 'web', 0, {}, 1000);
  answered(state, 'api', 0, {}, 1001);
  assert.deepEqual(state.due(1e9), []);
  answered(state, 'api', 1, one, 1e9);
  // The others get their whole time to come back as well.
  assert.deepEqual(state.due(1e9 + 59_999), []);
  assert.deepEqual(state.due(1e9 + 60_000), ['web']);
});

test('upstreams that have never answered do not vouch for the catalogue', () => {
  const state = tracking('web', 'api');
  state.remember('web', { peers: one });
  answered(state, 'web', 0, {}, 0);
  assert.deepEqual(state.due(1e9), []);
});

test('an upstream that goes from the configuration is forgotten, with what it vouched for', () => {
  const state = tracking('web', 'api', 'cart');
  answered(state, 'web', 1, one, 0);
  answered(state, 'api', 1, one, 0);
  answered(state, 'web', 0, {}, 0);
  state.declare(declared(['web', 'cart']), true);
  assert.equal(state.get('api'), undefined);
  assert.deepEqual(state.due(1e9), []);
});

test('each change is named, and what changes nothing is not', () => {
  const state = tracking('web', 'api');
  answered(state, 'web', 2, two, 0);
  assert.equal(answered(state, 'web', 2, { ...two }, 1), false);
  answered(state, 'api', 0, {}, 2);
  answered(state, 'web', 2, one, 3);
  answered(state, 'web', 0, {}, 4);
  answered(state, 'web', 0, {}, 5);
  const addresses = (added: string[], removed: string[]) => ({ added, removed, changed: [] });
  assert.deepEqual(
    state.happened.map(({ upstream, kind, ...rest }) => [
      upstream,
      kind,
      'changes' in rest ? rest.changes : undefined,
    ]),
    [
      ['web', 'observed', addresses(Object.keys(two), [])],
      ['api', 'held', undefined],
      ['api', 'observed', undefined],
      ['web', 'observed', addresses([], ['10.0.0.2:80'])],
      ['web', 'held', undefined],
    ],
  );
});

test('what is believed says how many peers go, and only while it is due', () => {
  const state = tracking('web');
  answered(state, 'web', 2, two, 0);
  answered(state, 'web', 0, {}, 0);
  confirm(state, 'web', minute - 1);
  assert.deepEqual(peers(state, 'web'), two);
  confirm(state, 'web', minute);
  assert.deepEqual(state.happened.at(-1), {
    upstream: 'web',
    kind: 'believed',
    why: 'no instance is left; 2 held peers removed',
  });
});

test('what the source says for sure is taken, if it says something else', () => {
  const state = tracking('web', 'api');
  answered(state, 'api', 1, one, 0);
  answered(state, 'web', 2, two, 0);
  answered(state, 'web', 0, {}, 0);
  const held = state.get('web')?.held;
  assert(held !== undefined);
  state.confirm('web', held, { instances: 1, peers: one }, 1);
  assert.deepEqual(peers(state, 'web'), one);
  assert.equal(state.isHolding, false);
  assert.equal(state.happened.at(-1)?.kind, 'observed');
});

test('an answer that was asked for before something else was held is of no matter', () => {
  const state = tracking('web');
  answered(state, 'web', 2, two, 0);
  answered(state, 'web', 0, {}, 0);
  const before = state.get('web')?.held;
  assert(before !== undefined);
  answered(state, 'web', 1, one, minute);
  answered(state, 'web', 0, {}, minute);
  state.confirm('web', before, { instances: 0, peers: {} }, 9 * minute);
  assert.deepEqual(peers(state, 'web'), one);
  assert.equal(state.isHolding, true);
});

test('the same answer again neither ends nor renews what is asked about it', () => {
  const state = tracking('web');
  answered(state, 'web', 2, two, 0);
  answered(state, 'web', 0, {}, 0);
  const held = state.get('web')?.held;
  answered(state, 'web', 0, {}, 1);
  assert.equal(state.get('web')?.held, held);
});

test('what a snapshot has is kept, with its settings, while the rest of the set is to come', () => {
  const state = createState(() => {});
  state.declare(new Map(), false);
  state.remember('web', { owner: 'us', peers: one });
  assert.equal(state.get('web'), undefined);
  state.declare(new Map(), true, true);
  assert.equal(state.isKnown, false);
  state.remember('web', { owner: 'us', balance: 'random', peers: one });
  state.remember('old', { owner: 'us', peers: one });
  const kept = { settings: { balance: 'random' }, peers: one, live: false, answered: false };
  assert.deepEqual(state.desired('web'), kept);
  // A target has something newer.
  state.remember('web', { owner: 'us', peers: two });
  assert.deepEqual(state.desired('web'), { ...kept, settings: {}, peers: two });

  state.declare(declared(['web']), true);
  assert.deepEqual(peers(state, 'web'), two);
  assert.deepEqual([...state.names()], ['web']);
  state.remember('old', { peers: one });
  assert.equal(state.get('old'), undefined);
});

test('only an upstream that is new or declared otherwise is named', () => {
  const state = tracking();
  const set = declared(['web', 'api']);
  state.declare(set, true);
  state.declare(new Map([...set, ...declared(['api', 'cart'])]), true);
  state.declare(new Map([...set].slice(0, 1)), true);
  assert.deepEqual(
    state.happened.map(({ upstream, kind }) => `${upstream} ${kind}`),
    [
      ...['web declared', 'api declared', 'api declared', 'cart declared'],
      ...['api withdrawn', 'cart withdrawn'],
    ],
  );
});

function transient(...names: string[]): State & { happened: Change[] } {
  const state = tracking('other');
  const set = declared(['other', ...names]);
  state.declare(
    new Map([...set].map(([name, one]) => [name, { ...one, isTransient: true }])),
    true,
  );
  answered(state, 'other', 1, one, 0);
  state.happened.length = 0;
  return state;
}

test('a transient upstream is there while it has instances, and while they are held', () => {
  const state = transient('web');
  assert.equal(state.desired('web')?.answered, false);
  answered(state, 'web', 1, one, 0);
  assert.deepEqual(state.desired('web')?.peers, one);
  answered(state, 'web', 1, {}, 1);
  assert.deepEqual(state.desired('web')?.peers, {});
  answered(state, 'web', 1, one, 2);
  answered(state, 'web', 0, {}, 3);
  assert.deepEqual(state.desired('web')?.peers, one);
  assert.equal(state.isGone('web'), false);
  confirm(state, 'web', 3 + minute);
  assert.equal(state.isGone('web'), true);
  assert.equal(state.desired('web'), undefined);
  answered(state, 'web', 1, two, 9 * minute);
  assert.deepEqual(state.desired('web')?.peers, two);
});

test('a transient upstream that was never seen is neither made nor held up with a word', () => {
  const state = transient('web');
  answered(state, 'web', 0, {}, 0);
  // A target that has one keeps it, until it is sure.
  assert.deepEqual([state.desired('web')?.answered, state.isGone('web')], [false, false]);
  confirm(state, 'web', minute);
  assert.equal(state.desired('web'), undefined);
  assert.deepEqual(
    state.happened.map(({ kind }) => kind),
    ['observed', 'observed'],
  );
});

test('an observation of an upstream that is not declared is none of ours', () => {
  const state = tracking('web');
  assert.equal(answered(state, 'other', 1, one, 0), false);
  assert.deepEqual(state.happened, []);
});
