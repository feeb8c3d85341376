// Proves that tables take as much of the dict as docs/size.md says, and that it
// is said before the dict is full, where people look.
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { reloadless } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { startStack } from '../stack/stack.ts';
import { deadPeers, type Peers, startOpenresty } from './openresty.ts';

const all = '/v1/upstreams';

/** nginx rounds up to a power of two. */
function slot(bytes: number): number {
  return 2 ** Math.ceil(Math.log2(bytes));
}

/** Of a text under a key that has a name in it. */
function text(bytes: number, name: string): number {
  const piece = 940 - name.length;
  const whole = Math.floor(bytes / piece);
  return whole * 1024 + slot((bytes % piece) + 84 + name.length);
}

/** The formula of docs/size.md. */
function need(name: string, peers: Peers): number {
  const count = Object.keys(peers).length;
  const json = JSON.stringify({ owner: 'test', peers }).length;
  const version = slot(78 + name.length);
  if (count <= 64) return version + text(json, name);
  const chunks = Math.ceil(count / 40);
  return version + text(30 * chunks, name) + chunks * text((40 * json) / count, name);
}

const shapes: [string, number, number, (i: number) => object][] = [
  ['many small ones', 2000, 3, () => ({})],
  ['as an agent writes them', 1000, 10, (i) => ({ weight: 1, id: `service-${i}` })],
  ['some with long ids', 200, 40, (i) => ({ id: `${i}`.padStart(100, 'x') })],
  ['a few large ones', 10, 1000, (i) => ({ weight: 1, id: `service-${i}` })],
  ['a huge one', 1, 20_000, (i) => ({ weight: 1, id: `service-${i}` })],
];

test('the dict takes what the formula says, to a tenth', async (t) => {
  const { admin } = await startOpenresty();
  const free = async () => JSON.parse(await admin.get('/v1/status')).free_space as number;
  const empty = await free();
  for (const [what, upstreams, size, fields] of shapes) {
    const peers = deadPeers(size, fields);
    const names = Array.from({ length: upstreams }, (_, i) => `service-${i}`);
    const document = Object.fromEntries(names.map((name) => [name, { owner: 'test', peers }]));
    await admin.write('PUT', all, { upstreams: document });
    const took = empty - (await free());
    const said = names.reduce((sum, name) => sum + need(name, peers), 0);
    t.diagnostic(`${what}: ${took} bytes, by the formula ${said}`);
    assert.ok(Math.abs(took - said) < 0.1 * said + 32_768, `${what}: ${took}, not ${said}`);
    await admin.write('PUT', all, { upstreams: {} });
  }
});

test('a dict that is nearly full is said so, once, and that it has room again', async () => {
  const stack = await startStack({ dict: '512k' });
  after(() => stack.stop());
  const agent = stack.agent('--service', 'web');
  const warnings = () => agent.messages.filter((line) => line.includes('nearly full')).length;
  const { http } = stack.nginx;
  await until('the agent runs', () => agent.messages.some((line) => line.includes('connected')));
  const before = await http('v1/status').json<{ warning?: string }>();
  assert.deepEqual([before.warning, warnings()], [undefined, 0]);

  let status = 200;
  for (let i = 0; status === 200; i += 1) {
    const warned = await http('v1/status').json<{ warning?: string }>();
    if (warned.warning !== undefined) break;
    const answer = await http.put(`v1/upstreams/by-hand-${i}`, {
      json: { peers: deadPeers(30) },
      throwHttpErrors: false,
    });
    status = answer.statusCode;
  }
  assert.equal(status, 200, 'full before it was said');
  const shown = await reloadless(['status', '--openresty', stack.nginx.admin]);
  assert.match(shown.stdout, /^warning: the shared dict is nearly full, \d+k of 512k are free/m);
  await until('the agent says it', () => warnings() > 0);
  await http.put('v1/upstreams', { json: { upstreams: {} } });
  await until('and that there is room', () =>
    agent.messages.some((line) => line.endsWith('has room again')),
  );
  assert.equal(warnings(), 1);
});
