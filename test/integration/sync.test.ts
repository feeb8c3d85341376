// `reloadless sync` between a real Consul and a real nginx.
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import { loadSnapshot } from '../../agent/snapshot/file.ts';
import { reloadless } from '../stack/agent.ts';
import { Recorder } from '../stack/recorder.ts';
import { close, listen } from '../stack/server.ts';
import { live, peers, type Stack, startStack } from '../stack/stack.ts';

let stack: Stack;
before(async () => {
  stack = await startStack({ init: 'allow = { "127.0.0.0/8" },' });
});
after(() => stack.stop());

let registered: string[] = [];
afterEach(async () => {
  for (const id of registered) await stack.consul.deregister(id);
  registered = [];
  await stack.nginx.http.put('v1/upstreams', { json: { upstreams: {} } });
});

async function register(name: string, ...ports: number[]): Promise<void> {
  for (const port of ports) {
    const id = `${name}-${port}`;
    await stack.consul.register({ name, id, address: '127.0.0.1', port });
    registered.push(id);
  }
}

test('an empty OpenResty comes to the state of Consul, and a second run changes nothing', async () => {
  await register('web', 1001, 1002);
  await register('api', 1003);
  const services = ['--service', 'web', '--service', 'api'];
  const first = await stack.run('sync', ...services);
  assert.deepEqual([first.code, first.stderr], [0, '']);
  assert.deepEqual(await peers(stack.nginx, 'web'), ['127.0.0.1:1001', '127.0.0.1:1002']);
  assert.deepEqual(await peers(stack.nginx, 'api'), ['127.0.0.1:1003']);
  const { version } = await live(stack.nginx);
  const second = await stack.run('sync', ...services);
  assert.equal(second.code, 0);
  assert.equal(second.stdout, `${stack.nginx.admin}: nothing to change\n`);
  assert.equal((await live(stack.nginx)).version, version);
});

test('--dry-run prints the merge patch and changes nothing', async () => {
  await register('web', 1001);
  const before = await live(stack.nginx);
  const dry = await stack.run('sync', '--service', 'web', '--dry-run');
  assert.equal(dry.code, 0);
  const patch = {
    upstreams: {
      web: { owner: 'reloadless', peers: { '127.0.0.1:1001': { weight: 1, id: 'web-1001' } } },
    },
  };
  assert.deepEqual(JSON.parse(dry.stdout), patch);
  assert.equal((await live(stack.nginx)).version, before.version);

  assert.equal((await stack.run('sync', '--service', 'web', '--dry-run', '--exit-code')).code, 3);
  await stack.run('sync', '--service', 'web');
  const same = await stack.run('sync', '--service', 'web', '--dry-run', '--exit-code');
  assert.deepEqual([same.code, JSON.parse(same.stdout)], [0, {}]);
});

test('settings arrive, with the health, the weight and the zone of each instance', async () => {
  const { consul, nginx } = stack;
  const weights = { Passing: 10, Warning: 3 };
  const common = { name: 'web', address: '127.0.0.1', weights };
  await consul.register({ ...common, id: 'a', port: 1001, meta: { zone: 'z1' } });
  await consul.register({ ...common, id: 'b', port: 1002 });
  await consul.register({ ...common, id: 'c', port: 1003 });
  await consul.register({ ...common, id: 'd', port: 1004, tags: ['other'] });
  registered.push('a', 'b', 'c', 'd');
  await consul.health('b', 'warning');
  await consul.health('c', 'critical');
  const file = stack.configure({
    upstreams: {
      web: { filter: '"other" not in Service.Tags', max_fails: 3, fail_timeout: '1500ms' },
      other: { service: 'web', tags: ['other'] },
    },
  });
  assert.equal((await stack.run('sync', '-c', file)).code, 0);
  assert.deepEqual(await nginx.http('v1/upstreams').json(), {
    upstreams: {
      web: {
        owner: 'reloadless',
        max_fails: 3,
        fail_timeout: 1.5,
        peers: {
          '127.0.0.1:1001': { weight: 10, id: 'a', zone: 'z1' },
          '127.0.0.1:1002': { weight: 3, id: 'b' },
        },
      },
      other: { owner: 'reloadless', peers: { '127.0.0.1:1004': { weight: 10, id: 'd' } } },
    },
  });
});

test('Consul away, OpenResty away: exit 1 and one clear line', async () => {
  const nobody = 'http://127.0.0.1:1';
  const noConsul = await stack.run('sync', '--service', 'web', '--consul', nobody);
  assert.equal(noConsul.code, 1);
  const refused = 'connect ECONNREFUSED 127.0.0.1:1';
  assert.equal(noConsul.stderr, `reloadless: Consul at ${nobody}: ${refused}\n`);

  await register('web', 1001);
  const flags = ['--consul', stack.consul.address, '--openresty', nobody, '--service', 'web'];
  const noTarget = await reloadless(['sync', ...flags]);
  assert.equal(noTarget.code, 1);
  assert.equal(noTarget.stderr, `reloadless: OpenResty at ${nobody}: ${refused}\n`);
});

test('--timeout bounds the whole', async (t) => {
  const silent = createServer(() => {});
  const flags = ['--service', 'web', '--consul', `http://${await listen(silent)}`];
  t.after(() => close(silent));
  const began = Date.now();
  const late = await stack.run('sync', ...flags, '--timeout', '500ms');
  assert.deepEqual([late.code, late.stderr], [1, 'reloadless: not done within 0.5 s\n']);
  assert(Date.now() - began < 5000);
});

test('a service that Consul does not know is said, and nothing is made or unmade of it', async () => {
  await register('web', 1001);
  const unknown = (name: string) => {
    return `reloadless: ${name}: service ${name}: Consul knows no such service; --allow-empty takes it for empty\n`;
  };
  const typo = await stack.run('sync', '--service', 'wbe', '--service', 'web');
  assert.deepEqual([typo.code, typo.stderr], [1, unknown('wbe')]);
  assert.equal(await peers(stack.nginx, 'wbe'), undefined);
  assert.deepEqual(await peers(stack.nginx, 'web'), ['127.0.0.1:1001']);

  const allowed = await stack.run('sync', '--allow-empty', '--service', 'wbe', '--service', 'web');
  assert.deepEqual([allowed.code, allowed.stderr], [0, '']);
  assert.deepEqual(await peers(stack.nginx, 'wbe'), []);

  const file = stack.configure({ upstreams: { web: { tags: ['x'] }, api: { service: 'web' } } });
  const none = await stack.run('sync', '-c', file);
  assert.equal(none.code, 1);
  assert.match(
    none.stderr,
    /^reloadless: web: service web, tags x: none of 1 instances is selected; /,
  );
  assert.deepEqual(await peers(stack.nginx, 'web'), ['127.0.0.1:1001']);
});

test('peers that Consul no longer shows stay, and that is a failure', async () => {
  await register('web', 1001, 1002);
  await register('api', 1003);
  const services = ['--service', 'web', '--service', 'api'];
  await stack.run('sync', ...services);
  await stack.consul.deregister('web-1001');
  await stack.consul.deregister('web-1002');
  assert.equal((await stack.run('sync', ...services)).code, 1);
  assert.equal((await peers(stack.nginx, 'web'))?.length, 2);
  const kept = await stack.run('sync', '--allow-empty', ...services);
  assert.equal(kept.code, 1);
  assert.equal(
    kept.stderr,
    'reloadless: web keeps its 2 peers, though Consul shows no instance: hold_empty: 0 would remove them\n',
  );
  assert.equal((await peers(stack.nginx, 'web'))?.length, 2);

  const file = stack.configure({ upstreams: { web: { hold_empty: 0 }, api: {} } });
  assert.equal((await stack.run('sync', '-c', file)).code, 1);
  assert.equal((await peers(stack.nginx, 'web'))?.length, 2);
  assert.equal((await stack.run('sync', '--allow-empty', '-c', file)).code, 0);
  assert.deepEqual(await peers(stack.nginx, 'web'), []);
});

test('an empty catalogue is not believed, whatever hold_empty says', async () => {
  await register('web', 1001);
  await register('api', 1002);
  const file = stack.configure({ upstreams: { web: { hold_empty: 0 }, api: { hold_empty: 0 } } });
  await stack.run('sync', '-c', file);
  await stack.consul.deregister('web-1001');
  await stack.consul.deregister('api-1002');
  const kept = await stack.run('sync', '--allow-empty', '-c', file);
  assert.equal(kept.code, 1);
  assert.match(
    kept.stderr,
    /^reloadless: web keeps its 1 peers, api keeps its 1 peers, though Consul shows no instance: nor does it show one of any service\n$/,
  );
  assert.equal((await peers(stack.nginx, 'web'))?.length, 1);
});

test('a peer that OpenResty refuses does not hold up the others', async () => {
  await register('web', 1001);
  await stack.consul.register({ name: 'far', id: 'far', address: '10.0.0.1', port: 80 });
  registered.push('far');
  const result = await stack.run('sync', '--service', 'far', '--service', 'web');
  assert.equal(result.code, 1);
  assert.match(
    result.stderr,
    /^reloadless: far: left out by OpenResty at .*: 10\.0\.0\.1:80 \(the address is .*\)\n$/,
  );
  assert.deepEqual(await peers(stack.nginx, 'web'), ['127.0.0.1:1001']);
  assert.deepEqual(await peers(stack.nginx, 'far'), []);
});

test('what another owner has is left alone, whatever is asked for', async () => {
  await register('web', 1001);
  const theirs = { peers: { '127.0.0.1:9': {} } };
  await stack.nginx.http.put('v1/upstreams/web', { json: theirs });
  await stack.nginx.http.put('v1/upstreams/hand', { json: theirs });
  const file = stack.configure({ upstreams: { web: {} } });
  const result = await stack.run('sync', '--prune', '-c', file);
  assert.equal(result.code, 1);
  assert.match(result.stderr, /web belongs to another owner\n$/);
  const { upstreams } = await live(stack.nginx);
  assert.deepEqual(Object.keys(upstreams).sort(), ['hand', 'web']);
  assert.deepEqual(await peers(stack.nginx, 'web'), ['127.0.0.1:9']);
});

test('what is ours and not in the file goes with --prune alone, and is said', async () => {
  await register('web', 1001);
  await register('api', 1002);
  const { admin } = stack.nginx;
  await stack.run('sync', '--service', 'api');
  const one = await stack.run('sync', '--service', 'web');
  assert.deepEqual(one, { code: 0, stdout: `${admin}: changed web\n`, stderr: '' });
  assert.deepEqual(await peers(stack.nginx, 'api'), ['127.0.0.1:1002']);

  const file = stack.configure({ upstreams: { web: {} } });
  const stays = await stack.run('sync', '-c', file);
  assert.deepEqual([stays.code, stays.stdout], [0, `${admin}: nothing to change\n`]);
  assert.equal(stays.stderr, `${admin}: not in ${file}, and stays without --prune: api\n`);
  assert.deepEqual(await peers(stack.nginx, 'api'), ['127.0.0.1:1002']);

  const dry = await stack.run('sync', '--prune', '--dry-run', '-c', file);
  assert.deepEqual(JSON.parse(dry.stdout), { upstreams: { api: null } });
  const pruned = await stack.run('sync', '--prune', '-c', file);
  assert.deepEqual(pruned, { code: 0, stdout: `${admin}: removed api\n`, stderr: '' });
  assert.equal(await peers(stack.nginx, 'api'), undefined);
});

test('--prune needs a file, which names all upstreams', async () => {
  const { code, stderr } = await stack.run('sync', '--prune', '--service', 'web');
  assert.equal(code, 2);
  assert.match(stderr, /^reloadless: --prune needs -c FILE/);
});

test('a large first push goes in parts, and all of it arrives', async (t) => {
  const node = { Node: 'many', Address: '127.0.0.1' };
  for (let i = 0; i < 2500; i += 50) {
    const batch = Array.from({ length: 50 }, (_, j) => 2000 + i + j);
    await Promise.all(
      batch.map((port) => {
        const Service = { ID: `big-${port}`, Service: 'big', Port: port };
        return stack.consul.http.put('catalog/register', { json: { ...node, Service } });
      }),
    );
  }
  const recorder = await Recorder.start(stack.nginx.adminPort);
  t.after(async () => {
    await recorder.stop();
    await stack.consul.http.put('catalog/deregister', { json: node });
  });
  const flags = ['--consul', stack.consul.address, '--openresty', recorder.address];
  const result = await reloadless(['sync', ...flags, '--service', 'big']);
  assert.deepEqual([result.code, result.stderr], [0, '']);
  const sent = recorder.writes.map(({ body }) => body.length);
  assert.ok(sent.length > 2 && Math.max(...sent) <= 32 * 1024, `${sent} bytes`);
  assert.equal((await peers(stack.nginx, 'big'))?.length, 2500);
});

test('the snapshot is written when it is asked for', async () => {
  await register('web', 1001);
  const snapshot = join(stack.folder, 'sync.snapshot');
  const service = ['--service', 'web', '--snapshot', snapshot];
  await stack.run('sync', ...service, '--dry-run');
  assert.equal(loadSnapshot(snapshot), undefined);
  await stack.run('sync', ...service);
  assert.deepEqual(loadSnapshot(snapshot)?.document.upstreams.web?.peers, {
    '127.0.0.1:1001': { weight: 1, id: 'web-1001' },
  });
});

test('what Consul does not show stays in the snapshot, nginx being there or not', async () => {
  await register('web', 1001);
  await register('api', 1002);
  const snapshot = join(stack.folder, 'kept.snapshot');
  const services = ['--service', 'web', '--service', 'api', '--snapshot', snapshot];
  await stack.run('sync', '--service', 'web');
  await stack.consul.deregister('web-1001');
  const kept = async () => {
    const expected = await stack.nginx.http('v1/upstreams').json();
    assert.deepEqual(loadSnapshot(snapshot)?.document, expected);
  };
  assert.equal((await stack.run('sync', ...services)).code, 1);
  assert.equal((await peers(stack.nginx, 'web'))?.length, 1);
  await kept();
  const flags = ['--consul', stack.consul.address, '--openresty', 'http://127.0.0.1:1'];
  assert.equal((await reloadless(['sync', ...flags, ...services])).code, 1);
  await kept();
});
