// Proves that of two writers with the same If-Match exactly one wins, and that
// unconditional writes of two workers lose nothing.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { deadPeer, onTwoWorkers, read, startOpenresty } from './openresty.ts';

const open = await startOpenresty();
const writers = await onTwoWorkers(open.twin);
const all = '/v1/upstreams';
const web = `${all}/web`;

test('1,000 races of two writers on two workers: one wins each', async () => {
  const wins = [0, 0];
  let { etag } = await read(open.admin);
  for (let race = 0; race < 1000; race += 1) {
    // The first to send has no lasting advantage.
    const order = race % 2 === 0 ? [0, 1] : [1, 0];
    const answers = await Promise.all(
      order.map(async (i) => {
        const patch = { upstreams: { web: { owner: `writer ${i} of race ${race}` } } };
        const answer = await writers[i]?.send('PATCH', all, patch, { 'if-match': etag });
        return { i, answer };
      }),
    );
    const won = answers.filter(({ answer }) => answer?.status === 200);
    const lost = answers.filter(({ answer }) => answer?.status === 412);
    assert.deepEqual([won.length, lost.length], [1, 1]);
    const winner = won[0]?.i ?? 0;
    wins[winner] = (wins[winner] ?? 0) + 1;
    const next = won[0]?.answer?.headers.etag ?? '';
    assert.equal(lost[0]?.answer?.headers.etag, next);
    assert.equal(version(next), version(etag) + 1);
    etag = next;
    const now = await open.admin.send('GET', web);
    assert.equal(JSON.parse(now.body).owner, `writer ${winner} of race ${race}`);
    assert.equal(now.headers.etag, etag);
  }
  assert.equal(version(etag), 1000);
});

test('storms of unconditional writes on two workers all arrive', async () => {
  const { etag } = await read(open.admin);
  const count = 300;
  await Promise.all(
    writers.map(async (writer, w) => {
      for (let i = 0; i < count; i += 1) {
        const key = deadPeer(w * count + i);
        await writer.write('PATCH', all, { upstreams: { web: { peers: { [key]: {} } } } });
        if (i % 3 === 0) await writer.write('PATCH', web, { peers: { [key]: null } });
      }
    }),
  );
  const { document, etag: last } = await read(open.admin);
  assert.equal(Object.keys(document.upstreams.web?.peers ?? {}).length, 2 * (count - count / 3));
  assert.equal(version(last), version(etag) + 2 * (count + count / 3));
});

test('a reader never sees half of a write', async () => {
  const names = Array.from({ length: 20 }, (_, i) => `part-${i}`);
  const write = (owner: number) => {
    const upstreams = names.map((name) => [name, { owner: `${owner}`, peers: {} }]);
    return writers[0].write('PUT', all, { upstreams: Object.fromEntries(upstreams) });
  };
  const owners = new Map<string | undefined, string>();
  await write(0);
  let done = false;
  const look = async () => {
    while (!done) {
      const { headers, body } = await writers[1].send('GET', all);
      const { upstreams } = JSON.parse(body) as { upstreams: Record<string, { owner: string }> };
      const seen = new Set(Object.values(upstreams).map(({ owner }) => owner));
      assert.equal(seen.size, 1, body);
      const [owner = ''] = seen;
      assert.equal(owners.get(headers.etag) ?? owner, owner);
      owners.set(headers.etag, owner);
    }
  };
  const writeAll = async () => {
    for (let i = 1; i <= 300; i += 1) await write(i);
  };
  await Promise.all([writeAll().finally(() => (done = true)), look()]);
  assert.ok(owners.size > 2, `${owners.size} states were seen`);
});

function version(etag: string): number {
  return Number(/\.(\d+)"$/.exec(etag)?.[1]);
}
