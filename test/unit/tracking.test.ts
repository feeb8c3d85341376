import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Peers } from '../../agent/state/document.ts';
import {
  answered,
  dueToEmpty,
  empty,
  newTracking,
  remember,
  type Tracking,
  track,
} from '../../agent/state/tracking.ts';

const one: Peers = { '10.0.0.1:80': { weight: 1 } };
const two: Peers = { ...one, '10.0.0.2:80': { weight: 1 } };
const minute = () => 60_000;

function tracking(...names: string[]): Tracking {
  const state = newTracking();
  track(state, names);
  return state;
}

function peers(state: Tracking, name: string): Peers | undefined {
  return state.upstreams.get(name)?.peers;
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
  assert.deepEqual(dueToEmpty(state, minute, 60_999), []);
  assert.deepEqual(dueToEmpty(state, minute, 61_000), ['web']);
  empty(state, 'web');
  assert.deepEqual(peers(state, 'web'), {});
  assert.deepEqual(dueToEmpty(state, minute, 99_999), []);
});

test('an instance that comes back ends the hold', () => {
  const state = tracking('web');
  answered(state, 'web', 2, two, 0);
  answered(state, 'web', 0, {}, 1000);
  answered(state, 'web', 1, one, 2000);
  assert.deepEqual(peers(state, 'web'), one);
  assert.deepEqual(dueToEmpty(state, minute, 1e9), []);
  empty(state, 'web');
  assert.deepEqual(peers(state, 'web'), one);
});

test('a hold of 0 is due at once', () => {
  const state = tracking('web');
  answered(state, 'web', 1, one, 5);
  answered(state, 'web', 0, {}, 5);
  assert.deepEqual(
    dueToEmpty(state, () => 0, 5),
    ['web'],
  );
});

test('peers from a snapshot are held too, and Consul goes before them', () => {
  const state = tracking('web');
  remember(state, 'web', one);
  answered(state, 'web', 0, {}, 0);
  assert.deepEqual(peers(state, 'web'), one);
  answered(state, 'web', 2, two, 1);
  remember(state, 'web', one);
  assert.deepEqual(peers(state, 'web'), two);
});

test('one of several that is empty is believed, when another shows an instance', () => {
  const state = tracking('web', 'api');
  answered(state, 'web', 1, one, 0);
  answered(state, 'api', 1, one, 0);
  answered(state, 'web', 0, {}, 1000);
  assert.deepEqual(dueToEmpty(state, minute, 61_000), ['web']);
});

test('when all of several are empty none is believed, until one shows an instance again', () => {
  const state = tracking('web', 'api', 'new');
  answered(state, 'web', 1, one, 0);
  answered(state, 'api', 1, one, 0);
  answered(state, 'web', 0, {}, 1000);
  answered(state, 'api', 0, {}, 1001);
  assert.deepEqual(dueToEmpty(state, minute, 1e9), []);
  answered(state, 'api', 1, one, 1e9);
  // The others get their whole time to come back as well.
  assert.deepEqual(dueToEmpty(state, minute, 1e9 + 59_999), []);
  assert.deepEqual(dueToEmpty(state, minute, 1e9 + 60_000), ['web']);
});

test('upstreams that have never answered do not vouch for the catalogue', () => {
  const state = tracking('web', 'api');
  remember(state, 'web', one);
  answered(state, 'web', 0, {}, 0);
  assert.deepEqual(dueToEmpty(state, minute, 1e9), []);
});

test('an upstream that goes from the configuration is forgotten, with what it vouched for', () => {
  const state = tracking('web', 'api', 'cart');
  answered(state, 'web', 1, one, 0);
  answered(state, 'api', 1, one, 0);
  answered(state, 'web', 0, {}, 0);
  track(state, ['web', 'cart']);
  assert.equal(state.upstreams.has('api'), false);
  assert.deepEqual(dueToEmpty(state, minute, 1e9), []);
});
