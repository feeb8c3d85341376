// Proves for how long a change may go out without the lease being asked for again.
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { pino } from 'pino';
import type { AdminClient } from '../../agent/openresty/admin.ts';
import { createLease } from '../../agent/openresty/lease.ts';

const us = { owner: 'us', identity: { id: 'me', host: 'here', pid: 1, since: 'now' } };
const { signal } = new AbortController();

/** A lease of a target that answers after some ms. */
function leaseOf(t: TestContext, ms: number) {
  let now = 0;
  t.mock.method(performance, 'now', () => now);
  const client: Partial<AdminClient> = {
    name: 'a target',
    async takeLease() {
      now += ms;
      return {};
    },
  };
  return createLease(client as AdminClient, () => us, pino({ level: 'silent' }));
}

test('it ends some time after it was asked for, however late the answer was', async (t) => {
  const quick = leaseOf(t, 5_000);
  assert.equal(await quick.hold(signal), true);
  assert.equal(quick.isSure(), true);
  const late = leaseOf(t, 7_000);
  assert.equal(await late.hold(signal), true);
  assert.equal(late.isSure(), false);
});
