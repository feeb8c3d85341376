import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pino } from 'pino';
import { boundedLog } from '../../agent/telemetry/bounded.ts';

interface Line {
  level: number;
  upstream: string;
  left_out?: number;
}

function scene() {
  const clock = { time: 0 };
  const lines: Line[] = [];
  const log = pino({ level: 'info' }, { write: (text) => lines.push(JSON.parse(text)) });
  const faults = boundedLog(log, () => clock.time);
  return { clock, lines, faults };
}

test('a fault that comes 20 times a second is said a few times a minute', () => {
  const { clock, lines, faults } = scene();
  for (; clock.time < 600_000; clock.time += 50) faults.error({ upstream: 'web' }, 'down');
  // The burst, and then three a minute.
  assert(lines.length >= 33 && lines.length <= 35, `${lines.length} lines in ten minutes`);
  const counted = lines.map(({ left_out }) => left_out);
  assert.deepEqual(
    counted.slice(0, 5),
    Array.from({ length: 5 }, () => undefined),
  );
  assert((counted[5] ?? 0) > 390 && (counted[6] ?? 0) > 390, `${counted}`);
});

test('each upstream has lines of its own, and levels are kept', () => {
  const { lines, faults } = scene();
  for (let i = 0; i < 100; i += 1) faults.warn({ upstream: 'web' }, 'left out');
  faults.info({ upstream: 'api' }, 'answered again');
  assert.deepEqual(
    lines.slice(-2).map(({ upstream, level }) => [upstream, level]),
    [
      ['web', 40],
      ['api', 30],
    ],
  );
});
