import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { createQuiet } from '../../agent/util/quiet.ts';
import { until } from '../stack/process.ts';

const hour = 3_600_000;

function start(t: TestContext) {
  const told: string[] = [];
  const quiet = createQuiet((name) => told.push(name));
  t.after(() => quiet.stop());
  return { told, quiet };
}

test('a burst is told once, when it rests', async (t) => {
  const { told, quiet } = start(t);
  for (const name of ['web', 'web', 'api', 'web']) quiet.soon(name, { min: 20, max: hour });
  assert.deepEqual(told, []);
  await until('both are told', () => told.length === 2);
  await sleep(60);
  assert.deepEqual(told.sort(), ['api', 'web']);
});

test('a burst that does not rest is told all the same', async (t) => {
  const { told, quiet } = start(t);
  const coming = setInterval(() => quiet.soon('web', { min: hour, max: 30 }), 5);
  t.after(() => clearInterval(coming));
  await until('it is told', () => told.length > 0);
});

test('what may not wait takes along what has waited', async (t) => {
  const { told, quiet } = start(t);
  quiet.soon('web', { min: 20, max: hour });
  quiet.atOnce('web');
  assert.deepEqual(told, ['web']);
  await sleep(60);
  assert.deepEqual(told, ['web']);
});

test('nothing is told after the end', async () => {
  const told: string[] = [];
  const quiet = createQuiet((name) => told.push(name));
  quiet.soon('web', { min: 10, max: 10 });
  quiet.stop();
  await sleep(40);
  assert.deepEqual(told, []);
});
