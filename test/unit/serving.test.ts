import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Candidate, type Health, serving } from '../../agent/source/health/serving.ts';

const usual = { min_health: 'warning', panic_threshold: 0 } as const;

/** One instance for each health, on addresses of their own. */
function instances(...healths: Health[]): Candidate[] {
  return healths.map((health, i) => ({
    address: `10.0.0.${i + 1}:80`,
    health,
    peer: { weight: 1, id: `web-${i + 1}` },
    passing: 1,
  }));
}

function ids(candidates: Candidate[], policy: Parameters<typeof serving>[1]): string {
  const { peers, panic } = serving(candidates, policy);
  return [...Object.values(peers).map(({ id }) => id), panic ? 'panic' : 'calm'].join(' ');
}

test('passing and warning serve, critical and maintenance do not', () => {
  const all = instances('passing', 'warning', 'critical', 'maintenance');
  assert.equal(ids(all, usual), 'web-1 web-2 calm');
  assert.equal(ids(all, { ...usual, min_health: 'passing' }), 'web-1 calm');
});

test('when none is healthy all registered ones serve, but those in maintenance', () => {
  const all = instances('critical', 'critical', 'maintenance');
  assert.equal(ids(all, usual), 'web-1 web-2 panic');
  assert.equal(ids(all, { ...usual, panic_threshold: undefined }), 'calm');
});

test('a warning is no better than critical when only passing serves', () => {
  const all = instances('warning', 'critical');
  assert.equal(ids(all, { min_health: 'passing', panic_threshold: 0 }), 'web-1 web-2 panic');
});

test('maintenance alone leaves nobody, and is no panic', () => {
  assert.equal(ids(instances('maintenance', 'maintenance'), usual), 'calm');
});

test('the threshold counts the share of registered instances that are healthy', () => {
  const half = instances('passing', 'critical', 'maintenance');
  assert.equal(ids(half, { ...usual, panic_threshold: 49 }), 'web-1 calm');
  assert.equal(ids(half, { ...usual, panic_threshold: 50 }), 'web-1 web-2 panic');
  const all = instances('passing', 'passing');
  assert.equal(ids(all, { ...usual, panic_threshold: 100 }), 'web-1 web-2 calm');
});

test('of two instances on one address the healthy one counts, in any order', () => {
  const [a, b] = instances('critical', 'passing');
  if (a === undefined || b === undefined) throw new Error('two candidates');
  const same = [a, { ...b, address: a.address }];
  assert.equal(ids(same, usual), 'web-2 calm');
  assert.equal(ids(same.toReversed(), usual), 'web-2 calm');
});

test('of two equal instances on one address the first counts, and either may leave', () => {
  const [a, b] = instances('passing', 'passing');
  if (a === undefined || b === undefined) throw new Error('two candidates');
  const twin = { ...b, address: a.address };
  assert.equal(ids([a, twin], usual), 'web-1 calm');
  assert.equal(ids([twin], usual), 'web-2 calm');
});

test('warnings that take all of the weight leave nobody healthy: then they serve as if passing', () => {
  const all = instances('warning', 'warning').map((candidate, i) => ({
    ...candidate,
    peer: { ...candidate.peer, weight: 0 },
    passing: i + 3,
  }));
  const weights = (policy: Parameters<typeof serving>[1]) =>
    Object.values(serving(all, policy).peers).map(({ weight }) => weight);
  assert.deepEqual(weights(usual), [3, 4]);
  assert.deepEqual(weights({ ...usual, panic_threshold: undefined }), [0, 0]);
  const [passing] = instances('passing');
  if (passing === undefined) throw new Error('a candidate');
  const other = { ...passing, address: '10.0.0.9:80' };
  assert.equal(ids([...all, other], usual), 'web-1 web-2 web-1 calm');
});

test('weights of 0 that were given to passing instances are no panic', () => {
  const drained = instances('passing', 'critical').map((candidate) => ({
    ...candidate,
    peer: { ...candidate.peer, weight: 0 },
  }));
  assert.equal(ids(drained, usual), 'web-1 calm');
});
