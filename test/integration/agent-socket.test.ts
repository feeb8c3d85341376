// The admin endpoint on a unix socket, with a token; and two agents on one OpenResty.
import assert from 'node:assert/strict';
import { symlinkSync, writeFileSync } from 'node:fs';
import { Agent as HttpAgent } from 'node:http';
import { join } from 'node:path';
import { after, before, type TestContext, test } from 'node:test';
import got from 'got';
import { parseEndpoint } from '../../agent/config/address.ts';
import { createAdminClient } from '../../agent/openresty/admin.ts';
import { Agent, reloadless } from '../stack/agent.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { until } from '../stack/process.ts';
import { type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
const { folder, remove } = temporaryFolder();
/** What a URL would take for its own, or write in another way. */
const odd = join(folder, 'ad min:80 #1?x=%41&é@[::1]+日.sock');
const socket = join(folder, 'admin.sock');
const token = join(folder, 'nginx.token');
const secret = 'a-secret-that-is-long-enough';

before(async () => {
  writeFileSync(token, `${secret}\n`);
  stack = await startStack({
    adminListen: `unix:${socket}`,
    tokenFile: token,
  });
  symlinkSync(socket, odd);
  for (const port of [1001, 1002]) {
    const id = `web-${port}`;
    await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port });
  }
});
after(async () => {
  await stack.stop();
  remove();
});

/** A configuration with the socket and a token file of its own. */
function configure(owner: string, upstream: string, token_file: string): string {
  return stack.configure({
    owner,
    consul: { address: stack.consul.address },
    openresty: [{ address: `unix:${odd}`, token_file }],
    snapshot: join(folder, `${owner}.snapshot`),
    upstreams: { [upstream]: { service: 'web' } },
  });
}

function run(t: TestContext, config: string): Agent {
  const agent = Agent.start(`${config}.log`, ['-c', config]);
  t.after(() => agent.stop());
  return agent;
}

async function upstreams(): Promise<Record<string, { peers: object }>> {
  const headers = { authorization: `Bearer ${secret}` };
  const answer: { upstreams: Record<string, { peers: object }> } = await got(
    'http://localhost/v1/upstreams',
    { agent: { http: new HttpAgent({ keepAlive: false, ...{ socketPath: socket } }) }, headers },
  ).json();
  return answer.upstreams;
}

test('a wrong token changes nothing and is said without it; a right one is taken at once', async (t) => {
  const file = join(folder, 'agent.token');
  writeFileSync(file, 'not-the-token-at-all');
  const config = configure('one', 'web', file);
  const agent = run(t, config);
  await until('the agent says it', () => agent.messages.some((m) => /unix:.*: 401 /.test(m)));
  const status = await reloadless(['status', '-c', config]);
  assert.equal(status.code, 1);
  assert.match(status.stderr, /^reloadless: OpenResty at unix:.*: 401 .*\n$/);
  writeFileSync(file, secret);
  await until(
    'the peers',
    async () => Object.keys((await upstreams()).web?.peers ?? {}).length === 2,
  );
  assert(!agent.log.includes('not-the-token'));
  assert(!agent.log.includes(secret));
  assert.equal((await reloadless(['status', '-c', config])).code, 0);
});

test('a token that was replaced is taken by the call that learns it', async (t) => {
  const file = join(folder, 'replaced.token');
  writeFileSync(file, 'an-old-token');
  const target = { endpoint: parseEndpoint(`unix:${odd}`, 'address'), token_file: file };
  const client = createAdminClient(target);
  t.after(() => client.close());
  const status = () => client.status(AbortSignal.timeout(10_000));
  await assert.rejects(status(), { status: 401 });
  writeFileSync(file, secret);
  await status();
  writeFileSync(file, 'another-old-token');
  await status();
  client.readToken();
  await assert.rejects(status(), { status: 401 });
});

test('a socket that is not there is named as it was written', async () => {
  const { code, stderr } = await reloadless(['status', '--openresty', `unix:${odd}.not`]);
  const error = `OpenResty at unix:${odd}.not: connect ENOENT ${odd}.not\n`;
  assert.deepEqual([code, stderr], [1, `reloadless: ${error}`]);
});

test('two agents of two owners write to one table and neither loses anything', async (t) => {
  const agents = ['one', 'two', 'three'].map((owner) => run(t, configure(owner, owner, token)));
  const peersOf = async (name: string) =>
    Object.keys((await upstreams())[name]?.peers ?? {}).length;
  const all = async (count: number) => {
    await until(`${count} peers for each`, async () => {
      for (const name of ['one', 'two', 'three']) if ((await peersOf(name)) !== count) return false;
      return true;
    });
  };
  await all(2);
  for (let port = 1003; port <= 1020; port += 1) {
    const id = `web-${port}`;
    await stack.consul.register({ name: 'web', id, address: '127.0.0.1', port });
  }
  await all(20);
  assert(agents.every((agent) => agent.exitCode === null));
});
