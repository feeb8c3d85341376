// Proves how long queries are held: that to renew many costs the same as to renew
// few, that they do not begin together, and what a cut teaches.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ownConnection, sharedConnections } from '../../agent/consul/wait.ts';

test('as few queries as ever wait as long as ever', () => {
  const fixed = { first: 25_000, afterError: 1_000, most: 25_000 };
  assert.deepEqual(ownConnection().now(), fixed);
  for (const count of [0, 1, 200]) {
    assert.deepEqual(sharedConnections(undefined, () => count).now(), fixed);
  }
});

test('what the user wants is kept, but for the first after an error', () => {
  assert.deepEqual(ownConnection(500).now(), { first: 500, afterError: 500, most: 500 });
  const { first, afterError, most } = sharedConnections(60_000, () => 5000).now();
  assert.deepEqual([afterError, most], [20_000, 60_000]);
  assert.ok(first >= 12_500 && first <= 25_000);
});

test('the more there are, the longer each waits, to what Consul holds at most', () => {
  const waits = [800, 5000, 20_000].map((count) => sharedConnections(undefined, () => count).now());
  assert.deepEqual(
    waits.map(({ most }) => most),
    [100_000, 600_000, 600_000],
  );
  assert.deepEqual(
    waits.map(({ afterError }) => afterError),
    [3_200, 20_000, 80_000],
  );
});

test('of many, no two begin with the same wait', () => {
  const wait = sharedConnections(undefined, () => 1000);
  const firsts = Array.from({ length: 1000 }, () => wait.now().first);
  assert.ok(Math.min(...firsts) < 13_000 && Math.max(...firsts) > 24_500);
  assert.ok(firsts.every((first) => first >= 12_500 && first <= 25_000));
});

test('a cut teaches a shorter wait, for some time', (t) => {
  let time = 0;
  t.mock.method(performance, 'now', () => time);
  const wait = sharedConnections(undefined, () => 5000);
  wait.cut(30_000);
  wait.cut(60_000);
  assert.equal(wait.now().most, 24_000);
  time = 599_000;
  assert.equal(wait.now().most, 24_000);
  time = 601_000;
  assert.equal(wait.now().most, 600_000);
  wait.cut(60_000);
  assert.equal(wait.now().most, 48_000);
});
