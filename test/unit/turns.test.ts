// Proves that no more work goes on at once than may, and that who leaves while it
// waits, or as its turn comes, takes nobody's turn along.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createTurns } from '../../agent/util/turns.ts';

const later = () => new Promise<void>((resolve) => setImmediate(resolve));

test('so many go on at once, in order, also behind one that fails', async () => {
  const turns = createTurns(2);
  const begun: number[] = [];
  let running = 0;
  let most = 0;
  const all = Array.from({ length: 6 }, (_, i) =>
    turns(async () => {
      begun.push(i);
      running += 1;
      most = Math.max(most, running);
      await later();
      running -= 1;
      if (i === 0) throw new Error('x');
    }),
  );
  const results = await Promise.allSettled(all);
  assert.deepEqual([most, begun], [2, [0, 1, 2, 3, 4, 5]]);
  assert.equal(results.filter(({ status }) => status === 'rejected').length, 1);
});

for (const when of ['while it waits', 'as its turn comes']) {
  test(`who leaves ${when} takes nobody's turn along`, async () => {
    const turns = createTurns(1);
    const abort = new AbortController();
    let finish = () => {};
    const first = turns(
      () =>
        new Promise<void>((resolve) => {
          finish = resolve;
        }),
    );
    const left = turns(async () => 'left', abort.signal);
    const last = turns(async () => 'last');
    abort.abort();
    // Else the turn is given before who has left can say so.
    if (when === 'while it waits') await assert.rejects(left, { name: 'AbortError' });
    finish();
    await first;
    await assert.rejects(left, { name: 'AbortError' });
    assert.equal(await last, 'last');
    assert.equal(await turns(async () => 'again'), 'again');
  });
}
