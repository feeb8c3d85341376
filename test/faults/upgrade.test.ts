// Proves that an upgrade of nginx by USR2, while two masters with a table each
// accept from the same sockets, fails no request, however it ends.
import assert from 'node:assert/strict';
import { Agent as HttpAgent } from 'node:http';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import got from 'got';
import { loadSnapshot } from '../../agent/snapshot/file.ts';
import { reason } from '../../agent/telemetry/log.ts';
import type { Agent } from '../stack/agent.ts';
import { Backend } from '../stack/backend.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx, type NginxOptions } from '../stack/nginx.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { type Live, type Stack, startStack } from '../stack/stack.ts';
import { authorization } from '../stack/token.ts';

const http: NginxOptions['http'] = ({ port }) => `
    upstream web {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("web") }
    }
    server {
        listen 127.0.0.1:${port};
        location = / { return 204; }
        location / {
            add_header X-Worker $pid always;
            access_by_lua_block { require("reloadless").access("web") }
            proxy_pass http://web;
        }
    }`;

/** The include's snapshot becomes a comment. */
const withoutSnapshot: Partial<NginxOptions> = {
  changes: [['        snapshot = "', '        -- "']],
};

interface Answer {
  /** When it was asked, as Date.now has it. */
  at: number;
  worker: number;
  /** The body, or the status when it is not 200. */
  text: string;
}

/** Node keeps connections by default. */
const fresh = new HttpAgent({ keepAlive: false });

/** Asks on fresh connections, several at once, until it is stopped. */
class Traffic {
  readonly answers: Answer[] = [];
  readonly #url: string;
  #running = true;
  readonly #done: Promise<unknown>;

  constructor(nginx: Nginx) {
    this.#url = `${nginx.url}/x`;
    this.#done = Promise.all(Array.from({ length: 4 }, () => this.#askOn()));
  }

  async #askOn(): Promise<void> {
    while (this.#running) await this.#ask();
  }

  async #ask(): Promise<void> {
    const at = Date.now();
    const answer = await got(this.#url, {
      agent: { http: fresh },
      retry: { limit: 0 },
      throwHttpErrors: false,
    }).catch(reason);
    if (typeof answer === 'string') {
      this.answers.push({ at, worker: 0, text: answer });
      return;
    }
    const { statusCode, headers, body } = answer;
    const text = statusCode === 200 ? body.trim() : String(statusCode);
    this.answers.push({ at, worker: Number(headers['x-worker']), text });
  }

  /** Waits until each of the workers has answered a request asked from now on. */
  async reaches(workers: number[]): Promise<void> {
    const now = Date.now();
    await this.untilAll(workers, 'answer', ({ at }) => at >= now);
  }

  /**
   * Waits until each of the workers has given such an answer. Asks in bursts: of
   * few connections at a time, a worker that is quick takes all on a busy machine.
   */
  async untilAll(
    workers: number[],
    what: string,
    isMeant: (answer: Answer) => boolean,
  ): Promise<void> {
    await until(`all of the workers ${workers} ${what}`, async () => {
      const seen = new Set(this.answers.filter(isMeant).map(({ worker }) => worker));
      const others = workers.filter((pid) => !seen.has(pid));
      if (others.length === 0) return true;
      await Promise.all(Array.from({ length: 24 }, () => this.#ask()));
      const count = (pid: number) => this.answers.filter(({ worker }) => worker === pid).length;
      throw new Error(`not ${others.map((pid) => `${pid} of ${count(pid)} answers`)}`);
    });
  }

  /** @returns all answers, what was asked last among them */
  async stop(): Promise<Answer[]> {
    this.#running = false;
    await this.#done;
    return this.answers;
  }
}

interface Scene {
  stack: Stack;
  agent: Agent;
  traffic: Traffic;
  /** Since when nobody may be served by an instance, as Date.now has it. */
  gone: Map<string, number>;
  add(name: string): Promise<void>;
  /** Takes an instance out of Consul. */
  remove(name: string): Promise<void>;
  /** Checks what happened to every request. */
  check(t: TestContext): Promise<void>;
}

/** One second after a change of Consul, nobody may serve by what was before. */
const most = 1000;

async function scene(t: TestContext, options: Partial<NginxOptions>): Promise<Scene> {
  const stack = await startStack({ http, daemon: true, workers: 3, ...options });
  t.after(() => stack.stop());
  const gone = new Map<string, number>();

  async function add(name: string): Promise<void> {
    const backend = await Backend.start(name);
    t.after(() => backend.stop());
    await stack.consul.register({
      name: 'web',
      id: name,
      address: '127.0.0.1',
      port: backend.port,
    });
  }

  await add('one');
  await add('two');
  const agent = stack.agent('--service', 'web');
  await until('the snapshot', () => {
    const web = loadSnapshot(stack.nginx.snapshot)?.document.upstreams.web;
    return Object.keys(web?.peers ?? {}).length === 2;
  });
  const traffic = new Traffic(stack.nginx);
  t.after(() => traffic.stop());
  await traffic.reaches(stack.nginx.workers());

  return {
    stack,
    agent,
    traffic,
    gone,
    add,
    async remove(name) {
      await stack.consul.deregister(name);
      gone.set(name, Date.now());
    },
    async check(t) {
      const answers = await traffic.stop();
      const failed = answers.filter(({ text }) => !/^[a-z]+$/.test(text));
      const [first, last] = [failed.at(0)?.at ?? 0, failed.at(-1)?.at ?? 0];
      t.diagnostic(`${answers.length} requests, ${failed.length} failed within ${last - first} ms`);
      for (const [name, at] of gone) {
        const stale = answers.filter((answer) => answer.text === name && answer.at > at);
        const ms = (stale.at(-1)?.at ?? at) - at;
        t.diagnostic(`${name}: ${stale.length} requests in ${ms} ms after it had gone`);
        assert.ok(ms < most, `${name} was served until ${ms} ms after it had gone`);
      }
      assert.deepEqual(failed, []);
      const errors = agent.log.split('\n').filter((line) => /"level":50/.test(line));
      assert.deepEqual(errors, []);
    },
  };
}

/** Waits until each of the workers has sent a request to the backend. */
async function serves(traffic: Traffic, workers: number[], name: string): Promise<void> {
  await traffic.untilAll(workers, `serve by ${name}`, ({ text }) => text === name);
}

/** Asks until both generations have answered. @returns the pids of the agents that have their leases */
async function holders(nginx: Nginx): Promise<(number | undefined)[]> {
  const found = new Map<string, number | undefined>();
  await until('both generations answer', async () => {
    const status: Live = await nginx.http('v1/status', { agent: { http: fresh } }).json();
    found.set(status.instance, status.agents.reloadless?.pid);
    return found.size === 2;
  });
  return [...found.values()];
}

function said(agent: Agent, text: string): number {
  return agent.messages.filter((message) => message.includes(text)).length;
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

for (const [title, options] of [
  ['with a snapshot', {}],
  ['without a snapshot', withoutSnapshot],
] as const) {
  test(`an upgrade ${title}: both generations follow, and no request fails`, async (t) => {
    const { stack, agent, traffic, add, remove, check } = await scene(t, options);
    const { nginx } = stack;
    const before = nginx.workers();
    const old = await nginx.upgrade();
    const all = [...before, ...nginx.workers()].filter((pid) => pid !== nginx.pid);
    await remove('two');
    await traffic.reaches(all);
    await add('three');
    await serves(traffic, all, 'three');
    await remove('one');
    await pause(most);
    await traffic.reaches(all);

    process.kill(old, 'SIGWINCH');
    await pause(1500);
    await nginx.end(old, 'SIGQUIT');
    await until('the agent says so', () => said(agent, 'one generation is left') === 1);
    await add('four');
    await serves(traffic, nginx.workers(), 'four');
    await check(t);
    assert.equal(said(agent, 'two generations'), 1);
    assert.equal(said(agent, 'one generation is left'), 1);
  });
}

test('an upgrade that is taken back: the old generation goes on, and no request fails', async (t) => {
  const { stack, agent, traffic, add, remove, check } = await scene(t, withoutSnapshot);
  const { nginx } = stack;
  const before = nginx.workers();
  await nginx.upgrade();
  const all = [...before, ...nginx.workers()];
  await remove('two');
  await traffic.reaches(all.filter((pid) => pid !== nginx.pid));
  assert.deepEqual(await holders(nginx), [agent.pid, agent.pid]);
  // Longer than a lease holds that is not renewed.
  await pause(11_000);
  assert.deepEqual(await holders(nginx), [agent.pid, agent.pid]);
  await nginx.end(nginx.pid ?? 0, 'SIGQUIT');
  await until('the agent says so', () => said(agent, 'one generation is left') === 1);
  await add('three');
  await serves(traffic, before, 'three');
  await check(t);
  assert.equal(said(agent, 'two generations'), 1);
});

test('old workers that come back after a change learn of it within a second', async (t) => {
  const { stack, traffic, gone, add, remove, check } = await scene(t, {});
  const { nginx } = stack;
  const old = await nginx.upgrade();
  const workers = nginx.workers();
  process.kill(old, 'SIGWINCH');
  await pause(most);
  await remove('two');
  await pause(most);
  process.kill(old, 'SIGHUP');
  gone.set('two', Date.now());
  await pause(most);
  await add('three');
  await serves(traffic, workers, 'three');
  await nginx.end(nginx.pid ?? 0, 'SIGQUIT');
  await serves(traffic, nginx.workers(), 'three');
  await check(t);
});

test('an old generation that does not answer holds up an upgrade for a moment only', async (t) => {
  const { stack, traffic, check } = await scene(t, {});
  const { nginx } = stack;
  const before = nginx.workers();
  for (const pid of before) process.kill(pid, 'SIGSTOP');
  await nginx.upgrade();
  for (const pid of before) process.kill(pid, 'SIGCONT');
  await traffic.reaches(nginx.workers());
  await check(t);
  assert.match(nginx.errorLog, /the old generation at .* gives no table: it does not answer/);
  assert.match(nginx.errorLog, /snapshot .*: 1 upstreams loaded/);
});

test('the table of the old generation comes over a unix socket and over IPv6, too', async (t) => {
  const { folder, remove } = temporaryFolder();
  const running: Nginx[] = [];
  t.after(async () => {
    await Promise.all(running.map((nginx) => nginx.stop()));
    remove();
  });
  const port = await freePort();
  const socket = join(folder, 'admin.sock');
  for (const [listen, url, token] of [
    [`unix:${socket}`, `http://unix:${socket}:`, null],
    [`[::1]:${port}`, `http://[::1]:${port}`, undefined],
  ] as const) {
    const options: Partial<NginxOptions> = token === null ? { tokenFile: null } : {};
    const nginx = await Nginx.start(join(folder, `nginx-${port}-${token}`), {
      ...withoutSnapshot,
      ...options,
      http,
      daemon: true,
      adminListen: listen,
    });
    running.push(nginx);
    const admin = got.extend({
      enableUnixSockets: true,
      agent: { http: fresh },
      headers: token === null ? {} : { authorization },
    });
    const peers = { '10.0.0.5:8080': { weight: 3 } };
    await admin.put(`${url}/v1/upstreams/web`, { json: { peers } });
    await nginx.upgrade();
    const found = new Map<string, unknown>();
    await until('both generations answer', async () => {
      const { body, headers } = await admin(`${url}/v1/upstreams`);
      found.set(String(headers['reloadless-instances']), JSON.parse(body));
      return found.size === 2;
    });
    const table = { upstreams: { web: { peers } } };
    assert.deepEqual([...found.values()], [table, table]);
  }
});
