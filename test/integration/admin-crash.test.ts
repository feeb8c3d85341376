// Proves that a worker which dies, or a dict which fills up, at any step of a
// write leaves a whole table behind: no lock, no half-written upstream, no key
// that nothing names; and that the next write works.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { until } from '../stack/process.ts';
import {
  type Answer,
  Client,
  deadPeer,
  deadPeers,
  type Openresty,
  read,
  startOpenresty,
} from './openresty.ts';

const all = '/v1/upstreams';

// Between two calls to the dict, so that never its own structure is damaged: nginx
// itself cannot repair that.
const locations = `
    # the worker that answers dies (or fails) at its n-th change of the dict from now
    location = /fault {
        content_by_lua_block {
            local ffi = require("ffi")
            local dict, left = ngx.shared.reloadless, tonumber(ngx.var.arg_after)
            local how = ngx.var.arg_how
            for _, name in ipairs({ "safe_add", "set", "delete", "incr" }) do
                rawset(dict, name, nil)
                local real = dict[name]
                rawset(dict, name, function(self, key, ...)
                    if key == "lock" and how ~= "die" then
                        return real(self, key, ...)
                    end
                    local now = left <= 0 and (how ~= "full" or name == "safe_add")
                    left = left - 1
                    if now and how == "die" then
                        ffi.C.kill(ngx.worker.pid(), 9)
                    elseif now and how == "full" then
                        return nil, "no memory"
                    elseif now and how == "raise" then
                        left = math.huge
                        error("as asked for")
                    end
                    return real(self, key, ...)
                end)
            end
            ngx.say(ngx.worker.pid())
        }
    }
    location = /keys {
        content_by_lua_block {
            local keys = ngx.shared.reloadless:get_keys(0)
            table.sort(keys)
            ngx.print(table.concat(keys, "\\n"))
        }
    }`;

const before = {
  small: { owner: 'x', peers: deadPeers(3) },
  big: { peers: deadPeers(200) },
  gone: { peers: deadPeers(70) },
  other: { peers: deadPeers(2) },
};
const after = {
  small: { owner: 'y', peers: deadPeers(4) },
  big: { peers: { ...deadPeers(200), [deadPeer(5)]: { weight: 9 }, [deadPeer(6)]: { weight: 9 } } },
  fresh: { peers: deadPeers(1) },
  large: { peers: deadPeers(66) },
  other: before.other,
};
const patch = {
  small: { owner: 'y', peers: { [deadPeer(3)]: {} } },
  big: { peers: { [deadPeer(5)]: { weight: 9 }, [deadPeer(6)]: { weight: 9 } } },
  gone: null,
  fresh: after.fresh,
  large: after.large,
};

/** Sends until a worker answers with 200: a dead one takes its connections along. */
async function persist(send: () => Promise<Answer>): Promise<Answer> {
  return until('a worker that answers', async () => {
    const answer = await send();
    assert.equal(answer.status, 200, answer.body);
    return answer;
  });
}

async function reset({ admin }: Openresty): Promise<void> {
  await persist(() => admin.send('PUT', all, { upstreams: before }));
}

/** Takes all out: then nothing may be left but the facts of the table. */
async function assertNoLeftovers({ admin, web }: Openresty): Promise<void> {
  await admin.write('PUT', all, { upstreams: {} });
  const keys = (await web.get('/keys')).split('\n').filter((key) => !key.startsWith('steal:'));
  const facts = 'instance kept layout next_end saved source updated_at version';
  assert.equal(keys.join(' '), facts);
}

/** Each upstream is as before or as after the write, never in between. */
async function assertWhole({ admin }: Openresty): Promise<'before' | 'after' | 'mixed'> {
  const upstreams = (await read(admin)).document.upstreams as Record<string, unknown>;
  const are = (state: Record<string, unknown>) =>
    JSON.stringify(sorted(upstreams)) === JSON.stringify(sorted(state));
  for (const name of new Set([...Object.keys(before), ...Object.keys(after)])) {
    const [old, now] = [before, after].map((state) => (state as Record<string, unknown>)[name]);
    const is = JSON.stringify(sorted(upstreams[name]));
    assert.ok(
      [old, now].some((state) => JSON.stringify(sorted(state)) === is),
      `${name}: ${is}`,
    );
  }
  return are(before) ? 'before' : are(after) ? 'after' : 'mixed';
}

/** The same with the keys of all objects in order. */
function sorted(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).map(([key, item]) => [key, sorted(item)] as const);
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

test('a worker killed at any step of a write', async () => {
  const open = await startOpenresty({ workers: 1, locations });
  const { admin, web, nginx } = open;
  const ends: string[] = [];
  for (let step = 0; ; step += 1) {
    await reset(open);
    const { etag } = await read(admin);
    const pid = (await web.get(`/fault?how=die&after=${step}`)).trim();
    const died = await admin.send('PATCH', all, { upstreams: patch }, { 'if-match': etag }).then(
      ({ status }) => assert.equal(status, 200) ?? false,
      () => true,
    );
    if (!died) break;
    await until('another worker', () => !nginx.workers().includes(Number(pid)));
    // The next write finds the lock of the dead and goes on: at once, not after its time.
    const began = Date.now();
    const answer = await persist(() => admin.send('PATCH', `${all}/other`, {}));
    assert.ok(Date.now() - began < 4000, 'the lock was waited for');
    ends.push(await assertWhole(open));
    if (ends.at(-1) !== 'before') assert.notEqual(answer.headers.etag, etag);
    if (step % 5 === 0) await assertNoLeftovers(open);
  }
  await web.get('/fault?how=none&after=0');
  assert.ok(ends.length > 20, `${ends}`);
  assert.equal(ends[0], 'before');
  assert.equal(ends.at(-1), 'after');
  await assertNoLeftovers(open);
});

for (const [how, status] of [
  ['full', 507],
  ['raise', 500],
] as const) {
  test(`a dict that is ${how} at any step of a write`, async () => {
    const open = await startOpenresty({ workers: 1, locations });
    const { admin, web } = open;
    await reset(open);
    let ends = '';
    for (let step = 0; ; step += 1) {
      const state = await read(admin);
      await web.get(`/fault?how=${how}&after=${step}`);
      const answer = await admin.send('PATCH', all, { upstreams: patch });
      await web.get('/fault?how=none&after=0');
      if (answer.status === 200) break;
      assert.equal(answer.status, status, answer.body);
      ends = await assertWhole(open);
      if (how === 'full') assert.deepEqual(await read(admin), state);
      if (how === 'full' || step % 5 === 0) await reset(open);
      // The same write again, and nothing of the first one is in its way.
      else await admin.write('PATCH', all, { upstreams: patch });
      if (step % 5 === 0) await assertNoLeftovers(open);
      await reset(open);
    }
    if (how === 'full') assert.equal(ends, 'before');
    await assertNoLeftovers(open);
  });
}

test('workers killed in the middle of storms of writes', async () => {
  const open = await startOpenresty({ workers: 2, locations });
  const { admin } = open;
  const taken = new Set<string>();
  let done = false;
  let serial = 0;

  async function storm(): Promise<void> {
    while (!done) {
      // A new connection now and then, so that both workers have some.
      const to = new Client(open.twin);
      for (let i = 0; i < 20; i += 1) {
        const key = deadPeer(serial++);
        const peers = { [key]: {} };
        const upstreams = { [`part-${serial % 3}`]: { peers }, all: { peers } };
        const answer = await to.send('PATCH', all, { upstreams }).catch(() => undefined);
        // No answer: it may have been taken, or not.
        if (answer === undefined) continue;
        assert.equal(answer.status, 200, answer.body);
        taken.add(key);
      }
      to.close();
    }
  }

  async function killWorkers(): Promise<void> {
    for (let death = 0; death < 8; death += 1) {
      const pid = await until('a worker to kill', async () => {
        const to = new Client(`127.0.0.1:${open.nginx.port}`);
        const { body } = await to.send('GET', `/fault?how=die&after=${7 * death + 3}`);
        to.close();
        return Number(body);
      });
      await until('its death', () => !open.nginx.workers().includes(pid));
      const count = taken.size;
      await until('more writes', () => taken.size > count + 50);
    }
  }

  await Promise.all([storm(), storm(), storm(), killWorkers().finally(() => (done = true))]);

  const { upstreams } = (await read(admin)).document;
  const keys = new Set(Object.keys(upstreams.all?.peers ?? {}));
  for (const key of taken) assert.ok(keys.has(key), `${key} was taken and is gone`);
  await persist(() => open.web.send('GET', '/keys'));
  await assertNoLeftovers(open);
});
