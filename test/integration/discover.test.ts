// `discover` between a real Consul and a real nginx: upstreams come and go with
// the services, and none goes because of an answer that may be wrong.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer, request as httpRequest } from 'node:http';
import { after, before, type TestContext, test } from 'node:test';
import got from 'got';
import type { Agent } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { until } from '../stack/process.ts';
import { close, listen } from '../stack/server.ts';
import { ask, live, peers, perName, type Stack, startStack } from '../stack/stack.ts';

const tags = ['reloadless'];
const rule = { tag: 'reloadless', hold_empty: '1s' };

/** Lists what lies in the table's dict, for whoever asks for the host `keys`. */
const withKeys: typeof perName = ({ port }) => `
    server {
        listen 127.0.0.1:${port};
        server_name keys;
        location / {
            content_by_lua_block {
                ngx.print(table.concat(ngx.shared.reloadless:get_keys(0), "\\n"))
            }
        }
    }`;

let stack: Stack;
before(async () => {
  stack = await startStack({ http: (ports) => perName(ports) + withKeys(ports) });
});
after(() => stack.stop());

/** An agent that ends with the test. Another service vouches for the catalogue. */
async function run(t: TestContext, config: object, file?: string): Promise<Agent> {
  await register(t, 'steady', 999);
  const agent = stack.agent('-c', stack.configure({ upstreams: { steady: {} }, ...config }, file));
  t.after(() => agent.stop());
  await has('steady', 999);
  return agent;
}

/** Instances that end with the test, on ports where nobody listens. */
async function register(t: TestContext, name: string, ...ports: number[]): Promise<void> {
  for (const port of ports) {
    const id = `${name}-${port}`;
    await stack.consul.register({ name, id, address: '127.0.0.1', port, tags });
    t.after(() => stack.consul.deregister(id).catch(() => {}));
  }
}

async function has(name: string, ...ports: number[]): Promise<void> {
  const expected = ports.map((port) => `127.0.0.1:${port}`).join();
  await until(`${name} has ${expected}`, async () => {
    return (await peers(stack.nginx, name))?.join() === expected;
  });
}

async function isGone(name: string): Promise<void> {
  await until(`${name} is gone`, async () => (await peers(stack.nginx, name)) === undefined);
}

async function says(agent: Agent, message: RegExp): Promise<void> {
  await until(`the agent says ${message}`, () => agent.messages.some((line) => message.test(line)));
}

test('a service that appears is routed, and is gone after its hold when it goes', async (t) => {
  const backend = await Backend.start('here');
  t.after(() => backend.stop());
  const agent = await run(t, { discover: rule });
  await register(t, 'web', backend.port);
  await until('web is routed', async () => (await ask(stack.nginx, 'web')) === 'here');
  await says(agent, /^discover: found .*web/);
  await stack.consul.deregister(`web-${backend.port}`);
  await says(agent, /^web: Consul shows no instance; the last peers stay for 1 s$/);
  assert.equal(await ask(stack.nginx, 'web'), 'here');
  await isGone('web');
  await says(agent, /^discover: gone is web$/);
});

test('only the instances that carry the tag are peers', async (t) => {
  await run(t, { discover: rule });
  await register(t, 'web', 1001, 1002);
  const plain = { name: 'web', id: 'plain', address: '127.0.0.1', port: 1003 };
  await stack.consul.register(plain);
  t.after(() => stack.consul.deregister('plain'));
  await has('web', 1001, 1002);
  await stack.consul.register({ ...plain, tags });
  await has('web', 1001, 1002, 1003);
  // Those that lose it leave, and with the last the upstream.
  for (const port of [1001, 1002]) {
    await stack.consul.register({ ...plain, id: `web-${port}`, port });
  }
  await has('web', 1003);
  await stack.consul.register(plain);
  await isGone('web');
});

test('a service of which no instance matches the filter gets no upstream, until one does', async (t) => {
  const filter = 'Service.Meta.version == "2"';
  await run(t, { discover: { ...rule, filter } });
  await register(t, 'web', 1001);
  const instance = { name: 'api', id: 'api-1', address: '127.0.0.1', port: 1002, tags };
  t.after(() => stack.consul.deregister('api-1'));
  await stack.consul.register({ ...instance, meta: { version: '2' } });
  await has('api', 1002);
  assert.equal(await peers(stack.nginx, 'web'), undefined);
  await stack.consul.register({
    ...{ name: 'web', id: 'web-1001', address: '127.0.0.1', port: 1001, tags },
    meta: { version: '2' },
  });
  await has('web', 1001);
  await stack.consul.register(instance);
  await isGone('api');
});

test('the upstream has the name and the settings of its rule, unless upstreams has it', async (t) => {
  await register(t, 'web', 1001);
  await register(t, 'api', 1002);
  await run(t, {
    upstreams: { steady: {}, 'x-api': { service: 'api', max_tries: 3 } },
    discover: [{ ...rule, name: 'x-{service}', balance: 'random' }],
  });
  await has('x-web', 1001);
  await has('x-api', 1002);
  const { upstreams } = await stack.nginx.http('v1/upstreams').json<{
    upstreams: Record<string, Record<string, unknown>>;
  }>();
  assert.equal(upstreams['x-web']?.balance, 'random');
  assert.equal(upstreams['x-api']?.balance, undefined);
  assert.equal(upstreams['x-api']?.max_tries, 3);
});

test('another rule is taken by SIGHUP, and what stays is not asked anew', async (t) => {
  await register(t, 'web', 1001);
  await register(t, 'api', 1002);
  const file = stack.configure({});
  const agent = await run(t, { discover: { ...rule, service: '*' } }, file);
  await has('web', 1001);
  await has('api', 1002);
  const held = await sockets(agent);
  stack.configure({ discover: { ...rule, service: '/^w/', balance: 'random' } }, file);
  agent.hup();
  await isGone('api');
  await isGone('steady');
  await has('web', 1001);
  await until('web is balanced otherwise', async () => {
    const web = await stack.nginx.http('v1/upstreams/web').json<{ balance?: string }>();
    return web.balance === 'random';
  });
  // The query for web and that for the catalogue are those of before.
  const now = await sockets(agent);
  assert.equal(held.filter((one) => now.includes(one)).length, 2);
});

test('with Consul away, an agent that starts keeps what the snapshot has', async (t) => {
  await register(t, 'web', 1001);
  const agent = await run(t, { discover: rule });
  await has('web', 1001);
  await until('it is saved', () => readFileSync(stack.nginx.snapshot, 'utf8').includes('"web"'));
  await agent.stop();
  await stack.consul.stop();
  t.after(() => stack.consul.isUp || stack.consul.up());
  await stack.nginx.http.delete('v1/upstreams/web');
  agent.up();
  // It is what nginx has lost: the snapshot knows it, and so does the next one.
  await has('web', 1001);
  await stack.nginx.http.patch('v1/upstreams', { json: { upstreams: { steady: null } } });
  await has('steady', 999);
  assert(readFileSync(stack.nginx.snapshot, 'utf8').includes('"web"'));
  await stack.consul.up();
  await says(agent, /^discover: found .*web/);
  await stack.consul.deregister('web-1001');
  await isGone('web');
});

test('what went while the agent was away goes after its hold', async (t) => {
  await register(t, 'web', 1001);
  const agent = await run(t, { discover: { ...rule, hold_empty: '2s' } });
  await has('web', 1001);
  await agent.stop();
  await stack.consul.deregister('web-1001');
  agent.up();
  // Until steady has answered too, it is all that there is, and is held as such.
  await says(agent, /^web: Consul shows no instance; the last peers stay (for 2 s$|until one of )/);
  await has('web', 1001);
  await isGone('web');
});

/** The inodes of an agent's connections to Consul. */
async function sockets(
  { pid }: Agent,
  address = new URL(stack.consul.address).host,
): Promise<string[]> {
  const port = Number(address.split(':')[1]).toString(16).toUpperCase();
  const open = readFileSync(`/proc/${pid}/net/tcp`, 'utf8')
    .split('\n')
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , remote, state]) => remote?.endsWith(`:${port}`) && state === '01')
    .map((columns) => columns[9]);
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      const [, inode] = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`)) ?? [];
      return open.includes(inode) && inode !== undefined ? [inode] : [];
    } catch {
      return [];
    }
  });
}

/** Stands before Consul, and counts the queries that it holds. */
async function counting(t: TestContext): Promise<{ address: string; held: () => string[] }> {
  const held = new Set<string>();
  const server = createServer((request, response) => {
    const { url: path = '', method, headers } = request;
    const key = `${path.split('?')[0]} ${Math.random()}`;
    held.add(key);
    const sent = httpRequest(stack.consul.address + path, { method, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 0, answer.headers);
      answer.pipe(response);
    });
    request.pipe(sent);
    sent.on('error', () => response.destroy());
    response.on('close', () => {
      held.delete(key);
      sent.destroy();
    });
  });
  const address = await listen(server);
  t.after(() => close(server));
  return { address, held: () => [...held].map((key) => key.split(' ')[0] ?? '').sort() };
}

test('200 that come and go leave no query, no upstream and no byte in the dict', async (t) => {
  const consul = await counting(t);
  await register(t, 'steady', 999);
  const config = { upstreams: { steady: {} }, discover: { ...rule, hold_empty: '100ms' } };
  const file = stack.configure({ consul: { wait: '2s' }, ...config });
  const agent = stack.agent('-c', file, '--consul', consul.address);
  t.after(() => agent.stop());
  const names = async () => Object.keys((await live(stack.nginx)).upstreams).join();
  const keys = async () => {
    const text = await got(stack.nginx.url, { headers: { host: 'keys' } }).text();
    // Without leases, which come and go with the agents, and without versions.
    const table = text.split('\n').filter((key) => !/^[aw]:/.test(key));
    return table.map((key) => key.replace(/:\d+$/, '')).sort();
  };
  await until('one upstream', async () => (await names()) === 'steady');
  const before = await keys();
  const each = 50;
  for (let wave = 0; wave < 4; wave += 1) {
    const ports = Array.from({ length: each }, (_, i) => 2000 + wave * each + i);
    const all = ports.map((port) => {
      return { name: `svc-${port}`, id: `svc-${port}`, address: '127.0.0.1', port, tags };
    });
    await Promise.all(all.map((one) => stack.consul.register(one)));
    const there = async () => (await names()).split(',').length === each + 1;
    await until(`wave ${wave} is there`, there, 60);
    assert(consul.held().length > each, 'each has a query');
    assert((await keys()).length > each, 'and a place in the dict');
    await Promise.all(all.map(({ id }) => stack.consul.deregister(id)));
    await until(`wave ${wave} is gone`, async () => (await names()) === 'steady', 60);
  }
  const last = ['/v1/catalog/services', '/v1/health/service/steady'];
  await until('two queries are left', () => consul.held().join() === last.join(), 30);
  assert.deepEqual(await keys(), before);
  // What is idle of the connections waits for the next queries; it is within the budget.
  assert((await sockets(agent, consul.address)).length <= 90);
});

test('sync and check try the rules once', async (t) => {
  await stack.nginx.http.put('v1/upstreams', { json: { upstreams: {} } });
  await register(t, 'steady', 999);
  await register(t, 'web', 1001);
  await register(t, 'api', 1002);
  const odd = { name: 'a b', id: 'odd', address: '127.0.0.1', port: 1003, tags };
  await stack.consul.register(odd);
  t.after(() => stack.consul.deregister('odd'));
  const upstreams = { steady: {} };
  const discover = [{ ...rule, service: '*e*' }, { ...rule, service: 'w*' }, { tag: 'none' }];
  const file = stack.configure({ upstreams, discover });
  const checked = await stack.run('check', '-c', file);
  assert.deepEqual(checked.code, 0);
  const said = [
    'left out, since no upstream can have such a name: a b',
    'found by several rules, of which the first wins: web',
  ];
  assert.equal(checked.stderr, said.map((line) => `reloadless: discover: ${line}\n`).join(''));
  assert.match(checked.stdout, /\ndiscover: tag reloadless, service \*e\*: finds 1: web\n/);
  assert.match(checked.stdout, /\ndiscover: tag none: finds nothing\n/);
  assert.match(checked.stdout, /\nweb +service web, tags reloadless +1 instance: 1 passing\n/);
  const offline = await stack.run('check', '--offline', '-c', file);
  assert.match(offline.stdout, /\ndiscover: tag reloadless, service w\*\n/);

  assert.equal((await stack.run('sync', '-c', file)).code, 0);
  await has('web', 1001);
  assert.equal(await peers(stack.nginx, 'api'), undefined);

  await stack.consul.deregister('web-1001');
  const kept = await stack.run('sync', '-c', file);
  assert.match(kept.stderr, /and stays without --prune: web\n/);
  await has('web', 1001);
  const pruned = await stack.run('sync', '--prune', '-c', file);
  assert.deepEqual([pruned.code, pruned.stdout], [0, `${stack.nginx.admin}: removed web\n`]);
  assert.equal(await peers(stack.nginx, 'web'), undefined);
});
