// Several watches of one service send one query, and each ends by itself.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ConsulClient, HealthAnswer, HealthQuery } from '../../agent/consul/api.ts';
import { sharingQueries } from '../../agent/source/shared.ts';

interface Asked {
  query: HealthQuery;
  signal: AbortSignal;
  answer: (value: bigint) => void;
  fail: (error: Error) => void;
}

/** A client whose answers the test gives. */
function setup() {
  const asked: Asked[] = [];
  const client = {
    name: 'here',
    health(query: HealthQuery, signal: AbortSignal): Promise<HealthAnswer> {
      return new Promise((resolve, reject) => {
        const answer = (value: bigint) =>
          resolve({ index: { value, address: 'here' }, entries: [value] });
        asked.push({ query, signal, answer, fail: reject });
        signal.addEventListener('abort', () => reject(signal.reason));
      });
    },
  } as unknown as ConsulClient;
  return { asked, client: sharingQueries(client) };
}

const web = { service: 'web', filter: undefined, consistency: 'stale', isWatch: true } as const;
const after = (value: bigint) => ({ block: { index: { value, address: 'here' }, wait: 1000 } });

test('what is the same is asked once, and what is not by itself', async () => {
  const { asked, client } = setup();
  const [one, two] = [new AbortController(), new AbortController()];
  const first = client.health(web, one.signal);
  const second = client.health(web, two.signal);
  assert.equal(asked.length, 1);
  asked[0]?.answer(7n);
  assert.deepEqual([(await first).entries, (await second).entries], [[7n], [7n]]);

  const both = [one, two].map(({ signal }) => client.health({ ...web, ...after(7n) }, signal));
  assert.equal(asked.length, 2);
  assert.equal(asked[1]?.signal, asked[0]?.signal, 'it is one watch');
  asked[1]?.answer(8n);
  await Promise.all(both);

  const others = [
    { ...web, ...after(6n) },
    { ...web, ...after(8n), consistency: 'consistent' as const },
    { ...web, filter: 'x' },
    { ...web, service: 'api' },
    { ...web, place: { datacenter: 'dc2' } },
    { ...web, isWatch: false },
    { ...web, isWatch: false },
  ].map((query) => client.health(query, one.signal));
  assert.equal(asked.length, 9);
  for (const { answer } of asked) answer(9n);
  await Promise.all(others);
  assert.equal(client.name, 'here');
});

test('an answer is not read where all know it, and is where one does not', async () => {
  const { asked, client } = setup();
  const [one, two] = [new AbortController(), new AbortController()];
  let second: string | undefined = 'a';
  const both = [
    client.health({ ...web, known: () => 'a' }, one.signal),
    client.health({ ...web, known: () => second }, two.signal),
  ];
  const known = () => asked[0]?.query.known?.();
  assert.equal(known(), 'a');
  second = 'b';
  assert.equal(known(), undefined);
  second = undefined;
  assert.equal(known(), undefined);
  asked[0]?.answer(7n);
  await Promise.all(both);
});

test('an error is everybody’s; one who ends takes nobody along, and the last ends the query', async () => {
  const { asked, client } = setup();
  const [one, two] = [new AbortController(), new AbortController()];
  const failing = [one, two].map(({ signal }) => client.health(web, signal));
  asked[0]?.fail(new Error('no leader'));
  for (const failed of failing) await assert.rejects(failed, /no leader/);

  const [first, second] = [one, two].map(({ signal }) => client.health(web, signal));
  one.abort(new Error('ended'));
  await assert.rejects(first as Promise<unknown>, /ended/);
  assert.equal(asked[1]?.signal.aborted, false);
  asked[1]?.answer(8n);
  assert.deepEqual((await second)?.entries, [8n]);

  const last = client.health({ ...web, ...after(8n) }, two.signal);
  two.abort(new Error('ended too'));
  await assert.rejects(last, /ended too/);
  assert.equal(asked[2]?.signal.aborted, true);
  const again = new AbortController();
  client.health(web, again.signal);
  assert.equal(asked[3]?.signal.aborted, false, 'who comes later begins anew');
});
