// Proves which upstreams are wanted as the catalogue, the rules and what is known
// of them change, and that a catalogue alone takes nothing out.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../agent/config/file.ts';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createUpstreamSet } from '../../agent/source/discover/set.ts';
import type { Peers } from '../../agent/state/document.ts';
import { createState, type State } from '../../agent/state/state.ts';

const peers: Peers = { '10.0.0.1:80': {} };

function configOf(file: object) {
  return resolveConfig({ config: 'x' }, {}, parseConfig(JSON.stringify(file), 'x'));
}

function catalogue(...services: string[]) {
  return new Map(services.map((name) => [name, new Set(['on'])]));
}

function start(file: object = { discover: { tag: 'on' } }) {
  const lines: string[] = [];
  const changes: boolean[] = [];
  const say = (_: unknown, line: string) => lines.push(line);
  const state: State = createState((change) => set.happened(change));
  const set = createUpstreamSet({
    state,
    log: { debug() {}, info: say, warn: say, error: say },
    changed: (isNew) => changes.push(isNew),
  });
  set.configure(configOf(file));
  return {
    ...{ state, set, lines, changes },
    names: () => [...set.upstreams.keys()].join(),
    shows: (name: string) => state.observe(name, { instances: 1, peers }, 0),
    /** Its last instance goes, which is believed at once. */
    async goes(name: string) {
      state.observe(name, { instances: 0, peers: {} }, 0);
      const held = state.get(name)?.held;
      if (held !== undefined) state.confirm(name, held, held.observation, 1e9);
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

test('the set is known when the catalogue has answered, and until then nothing goes', () => {
  const { state, set, changes, names } = start({ discover: { tag: 'on', service: '/web|api/' } });
  set.remember([['web', { owner: 'us', peers }]]);
  set.remember([['old', { owner: 'us', peers }]]);
  assert.deepEqual([state.isKnown, names(), changes], [false, '', []]);
  assert.deepEqual(state.desired('web')?.peers, peers);
  set.answered(catalogue('api'));
  assert.deepEqual([state.isKnown, names(), changes], [true, 'api,web', [true]]);
  assert.deepEqual(state.desired('web')?.peers, peers);
  assert.equal(state.get('old'), undefined, 'no rule can have made it');
});

test('the same services in another order are the same', () => {
  const { set, changes } = start();
  assert.equal(set.answered(new Map([['web', new Set(['on', 'x'])]])), true);
  const { upstreams } = set;
  assert.equal(set.answered(new Map([['web', new Set(['x', 'on'])]])), false);
  assert.equal(set.answered(new Map([...catalogue('web'), ['api', new Set<string>()]])), false);
  assert.equal(set.upstreams, upstreams);
  assert.deepEqual(changes, [true]);
});

test('one that leaves the catalogue stays until it has gone, as it was', async () => {
  const { set, names, shows, goes } = start({ discover: [{ tag: 'on' }, { tag: 'other' }] });
  const others = new Map([['web', new Set(['other'])]]);
  set.answered(new Map([...catalogue('api'), ...others]));
  const before = set.upstreams.get('web');
  shows('api');
  shows('web');
  set.answered(catalogue('api'));
  // Not as the first rule would have it.
  assert.equal(set.upstreams.get('web'), before);
  await goes('web');
  assert.equal(names(), 'api');
});

test('one that has no instance, and that the catalogue shows, is waited for', async () => {
  const { state, set, names, shows, goes } = start();
  set.answered(catalogue('web', 'api'));
  shows('api');
  await goes('web');
  assert.equal(names(), 'api,web');
  assert.equal(state.desired('web'), undefined);
  // Its own query may know it first.
  set.answered(catalogue('api'));
  assert.equal(names(), 'api');
});

test('what a target has is followed, if a rule can have made it', () => {
  const { state, set, names, changes } = start({ discover: { tag: 'on', name: 'x-{service}' } });
  set.answered(catalogue('api'));
  set.remember([
    ['x-web', { owner: 'us', peers }],
    ['web', { owner: 'us', peers }],
  ]);
  assert.equal(names(), 'x-api,x-web');
  assert.deepEqual(state.desired('x-web')?.peers, peers);
  assert.deepEqual(changes, [true, false]);
});

test('a rule that stays keeps what it has found, and one that goes does not', () => {
  const one = { tag: 'on', service: 'web-*' };
  const { set, names, shows } = start({ discover: [one, { tag: 'on', service: 'api-*' }] });
  set.answered(catalogue('web-a', 'web-b', 'api-a'));
  shows('web-b');
  set.answered(catalogue('web-a', 'api-a'));
  const before = set.upstreams;
  set.configure(configOf({ discover: [{ tag: 'on', service: 'db-*' }, one] }));
  assert.equal(names(), 'web-a,web-b');
  for (const name of ['web-a', 'web-b']) assert.equal(set.upstreams.get(name), before.get(name));
});

test('what another Consul has is not known, and until it is all stay', () => {
  const { state, set, names } = start();
  set.answered(catalogue('web'));
  set.configure(configOf({ consul: { address: 'b' }, discover: { tag: 'on' } }));
  assert.deepEqual([state.isKnown, names()], [false, 'web']);
  set.configure(configOf({ consul: { address: 'b' }, upstreams: { api: {} } }));
  assert.deepEqual([state.isKnown, names()], [true, 'api']);
});

test('what was shown while there were rules is not known when there are some again', () => {
  const { state, set, names } = start();
  set.answered(catalogue('web'));
  set.configure(configOf({ upstreams: { api: {} } }));
  set.configure(configOf({ discover: { tag: 'on' } }));
  assert.deepEqual([state.isKnown, names()], [false, '']);
});

test('a mass that vanishes is said, and stays', () => {
  const { set, lines } = start();
  const all = Array.from({ length: 12 }, (_, i) => `svc-${i}`);
  set.answered(catalogue(...all));
  set.answered(catalogue(...all.slice(6)));
  assert.equal(lines.filter((line) => line.includes('no more')).length, 0);
  set.answered(catalogue());
  set.answered(catalogue(...all));
  set.answered(catalogue(...all.slice(7)));
  assert.equal(set.upstreams.size, 12);
  assert.deepEqual(
    lines.filter((line) => line.includes('no more')).map((line) => line.slice(0, 56)),
    ['discover: the catalogue shows 7 of 12 services no more: '],
  );
});

test('what is odd is said once, as long as it stays so', () => {
  const { set, lines } = start();
  const odd = () => lines.filter((line) => line.includes('left out')).length;
  for (const more of ['a', 'b', 'c']) set.answered(catalogue('a b', more));
  assert.equal(odd(), 1);
  for (let i = 0; i < 1000; i += 1) set.answered(catalogue(`a ${i}`));
  assert(odd() <= 6, `${odd()} lines`);
});
