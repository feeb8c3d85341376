import assert from 'node:assert/strict';
import { test } from 'node:test';
import { allNames, type Desired, difference, ownDocument } from '../../agent/state/desired.ts';
import type { Document, Peers } from '../../agent/state/document.ts';
import { applyToDocument } from '../../agent/state/parts.ts';
import { createState } from '../../agent/state/state.ts';

const old: Peers = { '10.0.0.1:80': { weight: 1 } };
const now: Peers = { '10.0.0.2:80': { weight: 1 } };
const current: Document = {
  upstreams: {
    web: { owner: 'us', max_fails: 1, peers: old },
    gone: { owner: 'us', peers: old },
    theirs: { owner: 'them', peers: old },
    hand: { peers: old },
  },
};

function desire(fields: Partial<Desired>): Desired {
  return { settings: {}, peers: undefined, live: false, answered: false, ...fields };
}

/** A state in which this is desired. */
function stateOf(desired: Record<string, Desired>, isKnown = true) {
  const all = new Map(Object.entries(desired));
  return {
    isKnown,
    desired: (name: string) => all.get(name),
    names: () => all.keys(),
  };
}

/** What the target has after it was sent the difference. */
function upstreams(desired: Record<string, Desired>, isKnown = true): Document['upstreams'] {
  const state = stateOf(desired, isKnown);
  const { patch } = difference(current, allNames(current, state), state, 'us');
  return (patch === undefined ? current : applyToDocument(current, patch)).upstreams;
}

test('what Consul says replaces peers and settings', () => {
  const web = desire({ settings: { max_tries: 2 }, peers: now, live: true, answered: true });
  assert.deepEqual(upstreams({ web }).web, { owner: 'us', max_tries: 2, peers: now });
});

test('our own upstreams that are not desired go; those of others stay', () => {
  assert.deepEqual(Object.keys(upstreams({})), ['theirs', 'hand']);
});

test('nothing goes while the set of upstreams is not known', () => {
  assert.deepEqual(upstreams({}, false), current.upstreams);
});

test('only the upstreams that are named are compared', () => {
  const state = stateOf({ web: desire({ peers: now, live: true }) });
  assert.equal(difference(current, ['theirs', 'nowhere'], state, 'us').patch, undefined);
  assert.deepEqual(difference(current, ['gone'], state, 'us').patch, { upstreams: { gone: null } });
});

test('a name that another owner has is left alone and reported', () => {
  const theirs = desire({ peers: now, live: true });
  const state = stateOf({ theirs, hand: theirs });
  const found = difference(current, allNames(current, state), state, 'us');
  assert.deepEqual(found.foreign, ['theirs', 'hand']);
  assert.deepEqual(found.patch, { upstreams: { web: null, gone: null } });
});

test('before Consul answers the target keeps its peers', () => {
  assert.deepEqual(upstreams({ web: desire({}) }).web?.peers, old);
  assert.deepEqual(upstreams({ web: desire({ peers: now }) }).web?.peers, old);
});

test('a target without the upstream gets the remembered peers', () => {
  assert.deepEqual(upstreams({ api: desire({ peers: now }) }).api?.peers, now);
  assert.equal(Object.hasOwn(upstreams({ api: desire({}) }), 'api'), false);
});

test('a service without an instance is an upstream without peers', () => {
  assert.deepEqual(upstreams({ api: desire({ answered: true }) }).api, { owner: 'us', peers: {} });
});

test('an upstream may have the name of a method', () => {
  const result = upstreams({ toString: desire({ peers: now, live: true }) });
  assert.deepEqual(Object.entries(result).at(-1), ['toString', { owner: 'us', peers: now }]);
});

test('the snapshot holds our own upstreams whose peers are known', () => {
  const state = stateOf({
    web: desire({ peers: now, live: true }),
    api: desire({ answered: true }),
  });
  assert.deepEqual(ownDocument(state, 'us'), {
    upstreams: { web: { owner: 'us', peers: now } },
  });
});

test('what the state has lost stays until its set of upstreams is known', () => {
  const state = createState(() => {});
  const patch = () => difference(current, allNames(current, state), state, 'us').patch;
  state.declare(new Map(), false);
  assert.equal(patch(), undefined);
  state.declare(new Map([['web', { origin: 'test', settings: {}, holdFor: 0 }]]), false);
  state.observe('web', { instances: 1, peers: now }, 0);
  state.declare(new Map(), true, true);
  assert.equal(state.desired('web')?.peers, now);
  assert.deepEqual(Object.keys(patch()?.upstreams ?? {}), ['web']);
  state.declare(new Map(), false);
  assert.equal(patch(), undefined);
  state.declare(new Map(), true);
  assert.deepEqual(patch(), { upstreams: { web: null, gone: null } });
});

test('what a person said of a peer is no difference, and is never taken away', () => {
  const overrides = { '10.0.0.1:80': { drain: true } };
  const has: Document = {
    upstreams: {
      web: { owner: 'us', overrides, peers: old },
      gone: { owner: 'us', max_fails: 1, overrides, peers: old },
      back: { overrides, peers: {} },
      hand: { overrides, peers: old },
    },
  };
  const wanted = desire({ peers: old, live: true, answered: true });
  const same = difference(has, ['web'], stateOf({ web: wanted }), 'us');
  assert.equal(same.patch, undefined);

  const state = stateOf({ web: { ...wanted, peers: now }, back: wanted, hand: wanted });
  const { patch, foreign } = difference(has, allNames(has, state), state, 'us');
  assert.deepEqual(foreign, ['hand']);
  assert.deepEqual(patch && applyToDocument(has, patch).upstreams, {
    web: { owner: 'us', overrides, peers: now },
    gone: { overrides, peers: {} },
    back: { owner: 'us', overrides, peers: old },
    hand: { overrides, peers: old },
  });
});

test('what a target tells of people is no setting of ours', () => {
  const state = createState(() => {});
  const overrides = { '10.0.0.1:80': { drain: true } };
  state.declare(new Map(), true, true);
  state.remember('web', { owner: 'us', max_fails: 1, overrides, peers: old });
  assert.deepEqual(state.desired('web')?.settings, { max_fails: 1 });
  assert.equal(JSON.stringify(ownDocument(state, 'us')).includes('drain'), false);
});
