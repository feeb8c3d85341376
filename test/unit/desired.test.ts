import assert from 'node:assert/strict';
import { test } from 'node:test';
import { desired, ownDocument, type Wanted } from '../../agent/state/desired.ts';
import type { Document, Peers } from '../../agent/state/document.ts';

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

function want(fields: Partial<Wanted>): Wanted {
  return { settings: {}, peers: undefined, live: false, answered: false, ...fields };
}

function upstreams(wanted: Record<string, Wanted>): Document['upstreams'] {
  return desired(current, new Map(Object.entries(wanted)), 'us').document.upstreams;
}

test('what Consul says replaces peers and settings', () => {
  const web = want({ settings: { max_tries: 2 }, peers: now, live: true, answered: true });
  assert.deepEqual(upstreams({ web }).web, { owner: 'us', max_tries: 2, peers: now });
});

test('our own upstreams that are not wanted go; those of others stay', () => {
  assert.deepEqual(Object.keys(upstreams({})), ['theirs', 'hand']);
});

test('a name that another owner has is left alone and reported', () => {
  const wanted = new Map([
    ['theirs', want({ peers: now, live: true })],
    ['hand', want({ peers: now, live: true })],
  ]);
  const result = desired(current, wanted, 'us');
  assert.deepEqual(result.foreign, ['theirs', 'hand']);
  assert.deepEqual(result.document.upstreams.theirs, current.upstreams.theirs);
});

test('before Consul answers the target keeps its peers', () => {
  assert.deepEqual(upstreams({ web: want({}) }).web?.peers, old);
  assert.deepEqual(upstreams({ web: want({ peers: now }) }).web?.peers, old);
});

test('a target without the upstream gets the remembered peers', () => {
  assert.deepEqual(upstreams({ api: want({ peers: now }) }).api?.peers, now);
  assert.equal(Object.hasOwn(upstreams({ api: want({}) }), 'api'), false);
});

test('a service without an instance is an upstream without peers', () => {
  assert.deepEqual(upstreams({ api: want({ answered: true }) }).api, { owner: 'us', peers: {} });
});

test('an upstream may have the name of a method', () => {
  const result = upstreams({ toString: want({ peers: now, live: true }) });
  assert.deepEqual(Object.entries(result).at(-1), ['toString', { owner: 'us', peers: now }]);
});

test('the snapshot holds our own upstreams whose peers are known', () => {
  const wanted = new Map([
    ['web', want({ peers: now, live: true })],
    ['api', want({ answered: true })],
  ]);
  assert.deepEqual(ownDocument(wanted, 'us'), {
    upstreams: { web: { owner: 'us', peers: now } },
  });
});
