// A kind of hold is a file of its own and a line in the list of kinds. This one
// doubts that instances vanish while others stay, as its confirmation shows again.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import type { Peers } from '../../agent/state/document.ts';
import type { Change, State } from '../../agent/state/state.ts';
import { agentWith } from '../stack/copy.ts';

const dummy = `
import type { HoldKind } from '../hold.ts';

export const vanish: HoldKind = {
  doubts({ peers }, last = {}) {
    return 2 * Object.keys(peers).length < Object.keys(last).length;
  },
  isDue: () => true,
  held: () => 'more than half have vanished; they stay until that is confirmed',
  believed: (gone) => \`\${gone} have vanished indeed\`,
  kept: () => 'most of them have vanished',
};
`;

function some(n: number): Peers {
  return Object.fromEntries(Array.from({ length: n }, (_, i) => [`10.0.0.${i + 1}:80`, {}]));
}

interface Tracking {
  state: State;
  happened: Change[];
  observe: (n: number, now: number) => void;
  /** The source says for sure that there are n. */
  confirm: (n: number, now: number) => void;
  count: () => number;
  /** What the log says. */
  said: string[];
}

/** A state with the dummy, and an upstream `web` of ten peers. */
async function start(t: TestContext): Promise<Tracking> {
  const agent = agentWith(t, {
    file: 'state/holds/vanish.ts',
    text: dummy,
    list: 'state/holds/kinds.ts',
    line: "export { vanish } from './vanish.ts';",
  });
  const { createState } = await import(join(agent, 'state/state.ts'));
  const { logChange } = await import(join(agent, 'telemetry/changes.ts'));
  const said: string[] = [];
  const log = pino({ base: null }, { write: (line) => said.push(JSON.parse(line).msg) });
  const happened: Change[] = [];
  const state: State = createState((change: Change) => {
    happened.push(change);
    logChange(log, change);
  });
  state.declare(new Map([['web', { origin: 'test', settings: {}, holdFor: 60_000 }]]), true);
  const observation = (n: number) => ({ instances: n, peers: some(n) });
  state.observe('web', observation(10), 0);
  happened.length = 0;
  said.length = 0;
  return {
    state,
    happened,
    said,
    observe: (n, now) => state.observe('web', observation(n), now),
    confirm(n, now) {
      const held = state.get('web')?.held;
      assert(held !== undefined);
      state.confirm('web', held, observation(n), now);
    },
    count: () => Object.keys(state.get('web')?.peers ?? {}).length,
  };
}

test('a doubted answer that is confirmed is believed, with the words of the doubt', async (t) => {
  const it = await start(t);
  it.observe(4, 1);
  assert.equal(it.count(), 10);
  assert.deepEqual(it.state.due(1), ['web']);
  it.confirm(4, 2);
  assert.equal(it.count(), 4);
  assert.equal(it.state.isHolding, false);
  assert.deepEqual(it.said, [
    'web: more than half have vanished; they stay until that is confirmed',
    'web: 6 have vanished indeed',
  ]);
});

test('what is confirmed may be another answer, also one that is in doubt as well', async (t) => {
  const it = await start(t);
  it.observe(4, 1);
  it.confirm(3, 2);
  assert.equal(it.count(), 3);
  it.observe(1, 3);
  it.confirm(3, 4);
  assert.equal(it.count(), 3);
  assert.deepEqual(
    it.happened.map(({ kind }) => kind),
    ['held', 'believed', 'held', 'observed'],
  );
});

test('what two kinds doubt is believed when the time of both has come', async (t) => {
  const it = await start(t);
  it.observe(4, 0);
  it.observe(0, 1000);
  assert.deepEqual(it.state.due(60_999), []);
  it.confirm(0, 60_999);
  assert.equal(it.count(), 10);
  assert.deepEqual(it.state.due(61_000), ['web']);
  it.confirm(0, 61_000);
  assert.equal(it.count(), 0);
  assert.equal(it.state.isHolding, false);
});
