import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createPace } from '../../agent/consul/pace.ts';

/** Runs a watch whose every answer comes at once, for a minute. @returns how many there were */
function asked(answer: 'change' | 'no change'): number {
  let time = 0;
  let count = 0;
  const pace = createPace(() => time);
  while (time < 60_000) {
    count += 1;
    time += pace.after(answer);
  }
  return count;
}

test('an endpoint that answers at once is asked about ten times a second', () => {
  const times = asked('no change');
  assert(times >= 600 && times <= 612, `${times} times in a minute`);
});

test('a service that never rests is asked about fifty times a second', () => {
  const times = asked('change');
  assert(times >= 3450 && times <= 3502, `${times} times in a minute`);
});

test('changes after a quiet time are not delayed at all', () => {
  let time = 0;
  const pace = createPace(() => time);
  for (let i = 0; i < 1000; i += 1) pace.after('change');
  time += 3_600_000;
  // As many as a deployment may be.
  for (let i = 0; i < 500; i += 1) assert.equal(pace.after('change'), 0);
  // The next of them is due.
  const pause = pace.after('change');
  assert(pause > 0 && pause <= 20, `${pause} ms`);
});
