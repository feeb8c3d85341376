// Proves that the lease of an owner keeps an agent of another configuration out
// while the holder lives, and that it never moves the table's version.
import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';
import { assertProblem, read, startOpenresty } from './openresty.ts';

const { admin } = await startOpenresty();
const path = '/v1/agents/me';
const first = { id: 'one', host: 'a', pid: 1, since: '2026-11-25T12:00:00.000Z' };
const second = { id: 'two', host: 'b', pid: 2, since: '2026-11-25T12:00:01.000Z' };

beforeEach(() => admin.send('DELETE', path));

async function agents(): Promise<Record<string, unknown>> {
  return JSON.parse(await admin.get('/v1/status')).agents;
}

test('the first has it, another id is refused and named as waiting', async () => {
  const before = await read(admin);
  const taken = await admin.send('PUT', path, first);
  assert.deepEqual([taken.status, taken.headers['reloadless-table']], [204, before.etag]);
  const refused = await admin.send('PUT', path, second);
  assert.equal(refused.status, 409);
  assertProblem(refused, { detail: /pid 1 on a, since 2026-11-25T12:00:00/ });
  assert.deepEqual(JSON.parse(refused.body).holder, first);
  assert.deepEqual(await agents(), { me: { ...first, waiting: second } });
  assert.deepEqual(JSON.parse(await admin.get(path)), first);
  assert.deepEqual(await read(admin), before);
});

test('the same id takes it over at once', async () => {
  await admin.send('PUT', path, first);
  const restarted = { ...first, pid: 3 };
  assert.equal((await admin.send('PUT', path, restarted)).status, 204);
  assert.deepEqual(JSON.parse(await admin.get(path)), restarted);
});

test('only the holder, or a person, gives it back', async () => {
  await admin.send('PUT', path, first);
  assert.equal((await admin.send('DELETE', `${path}?id=two`)).status, 204);
  assert.equal((await admin.send('GET', path)).status, 200);
  assert.equal((await admin.send('DELETE', `${path}?id=one`)).status, 204);
  assertProblem(await admin.send('GET', path));
  await admin.send('PUT', path, second);
  assert.equal((await admin.send('DELETE', path)).status, 204);
  assert.equal((await admin.send('PUT', path, first)).status, 204);
});

test('an owner is any text that an upstream may have', async () => {
  for (const owner of ['a/b', '../upstreams', 'ü é', '..', '%2e', 'x'.repeat(128)]) {
    const at = `/v1/agents/${encodeURIComponent(owner).replaceAll('.', '%2e')}`;
    assert.equal((await admin.send('PUT', at, first)).status, 204, owner);
    assert.deepEqual((await agents())[owner], first, owner);
    await admin.send('DELETE', at);
  }
});

test('what is not an agent is refused, with a pointer', async () => {
  const cases: [unknown, string][] = [
    ['nothing', ''],
    [null, ''],
    [{}, '/id'],
    [{ ...first, host: '' }, '/host'],
    [{ ...first, pid: 0 }, '/pid'],
    [{ ...first, pid: 1.5 }, '/pid'],
    [{ ...first, since: 'x'.repeat(65) }, '/since'],
    [{ ...first, id: 'a\nb' }, '/id'],
    [{ ...first, more: 1 }, '/more'],
  ];
  for (const [body, pointer] of cases) {
    const answer = await admin.send('PUT', path, JSON.stringify(body), {
      'content-type': 'application/json',
    });
    assert.equal(answer.status, 422, answer.body);
    assertProblem(answer, { pointer });
  }
  const long = await admin.send('PUT', `/v1/agents/${'x'.repeat(129)}`, first);
  assert.equal(long.status, 422);
  assert.deepEqual(await agents(), {});
});

test('a lease for which the dict has no room is refused', async () => {
  const small = await startOpenresty({ dict: '64k' });
  const long = { ...first, host: 'a'.repeat(255) };
  const take = (i: number) => small.admin.send('PUT', `/v1/agents/${i}`, long);
  let answer = await take(0);
  for (let i = 1; answer.status === 204; i += 1) answer = await take(i);
  assert.equal(answer.status, 507);
  assertProblem(answer, { detail: /the shared dict is full/ });
});
