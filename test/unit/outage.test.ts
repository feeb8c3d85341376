// Proves that an outage of Consul is said once, and its end too, however many
// upstreams notice it and however many addresses fail in turn.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ConsulError } from '../../agent/consul/error.ts';
import type { FaultLog } from '../../agent/telemetry/bounded.ts';
import { createOutage } from '../../agent/telemetry/outage.ts';

function create() {
  const lines: string[] = [];
  const say = (level: string) => (_: object, line: string) => lines.push(`${level} ${line}`);
  const log = Object.fromEntries(
    ['debug', 'info', 'warn', 'error'].map((level) => [level, say(level)]),
  ) as unknown as FaultLog;
  const outage = createOutage(log);
  const fail = (upstream: string, message: string) => {
    outage.failed(upstream, new ConsulError('consul/failed', message));
  };
  return { outage, fail, said: () => lines.filter((line) => !line.startsWith('debug')) };
}

const stays = 'its peers stay, trying again';

test('many upstreams with one outage are two lines', () => {
  const { outage, fail, said } = create();
  for (const name of ['a', 'b', 'c', 'a', 'b', 'c']) fail(name, 'no leader');
  for (const name of ['a', 'b', 'c']) outage.answered(name);
  assert.deepEqual(said(), [
    `error a: no leader: ${stays}`,
    'info c: answered again after: no leader',
  ]);
});

test('addresses that fail in turn are a line each, and one for the end', () => {
  const { outage, fail, said } = create();
  for (let i = 0; i < 100; i += 1) fail('a', `fault of ${i % 2}`);
  outage.answered('a');
  outage.answered('a');
  assert.deepEqual(said(), [
    `error a: fault of 0: ${stays}`,
    `error a: fault of 1: ${stays}`,
    'info a: answered again after: fault of 1',
  ]);
});

test('a new outage is said anew', () => {
  const { outage, fail, said } = create();
  fail('a', 'x');
  outage.answered('a');
  fail('a', 'x');
  assert.equal(said().filter((line) => line === `error a: x: ${stays}`).length, 2);
});
