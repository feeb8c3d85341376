// A kind of source is a file of its own and a line in the list of kinds: with
// these, `run` follows it, and `sync` and `check` ask it. No Consul runs here.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { environment } from '../stack/agent.ts';
import { agentWith } from '../stack/copy.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { start, stop, until } from '../stack/process.ts';
import { peers } from '../stack/stack.ts';

const dummy = `
import { z } from 'zod';
import type { Source, SourceConfig, SourceKind } from './source.ts';

interface DummyConfig extends SourceConfig {
  on_port: number;
}

/** One peer, and each 200 ms one more. */
export const dummy: SourceKind<DummyConfig> = {
  keys: { on_port: z.number() },
  configure: (_, written) => ({ kind: 'dummy', ...(written as { on_port: number }) }),
  describe: ({ on_port }) => \`port \${on_port}\`,
  open({ config }): Source {
    let instances = 0;
    let timer: NodeJS.Timeout | undefined;
    function observe() {
      instances += 1;
      const all = Array.from({ length: instances }, (_, i) => [\`127.0.0.\${i + 1}:\${config.on_port}\`, {}]);
      return { instances, peers: Object.fromEntries(all) };
    }
    return {
      follow({ observed }) {
        observed(observe());
        timer = setInterval(() => observed(observe()), 200);
      },
      read: async () => observe(),
      confirm: async () => observe(),
      summary: async () => 'some',
      stop: () => clearInterval(timer),
    };
  },
};
`;

test('a dummy source is a file and a line', async (t) => {
  const agent = agentWith(t, {
    file: 'source/dummy.ts',
    text: dummy,
    list: 'source/kinds.ts',
    line: "export { dummy } from './dummy.ts';",
  });
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const nginx = await Nginx.start(join(folder, 'nginx'), {
    http: ({ port }) => `server { listen 127.0.0.1:${port}; }`,
  });
  t.after(() => nginx.stop());
  const file = join(folder, 'reloadless.yml');
  const config = {
    consul: { address: '127.0.0.1:1' },
    openresty: [{ address: nginx.admin }],
    snapshot: join(folder, 'snapshot'),
    upstreams: { web: { source: 'dummy', on_port: 80, balance: 'random' } },
  };
  writeFileSync(file, JSON.stringify(config));
  const args = ['--import', 'tsx', join(agent, 'main.ts')];

  function reloadless(...more: string[]): Promise<{ code: number; out: string }> {
    return new Promise((resolve) => {
      const options = { cwd: checkout, env: environment({}) };
      execFile(process.execPath, [...args, ...more, '-c', file], options, (error, out, err) => {
        resolve({ code: error === null ? 0 : Number(error.code), out: out + err });
      });
    });
  }

  const checked = await reloadless('check');
  assert.equal(checked.code, 0, checked.out);
  assert.match(checked.out, /\nUPSTREAM {2}SOURCE {3}NOW\nweb {7}port 80 {2}some\n/);

  const synced = await reloadless('sync');
  assert.deepEqual(synced, { code: 0, out: `${nginx.admin}: changed web\n` });
  assert.deepEqual(await peers(nginx, 'web'), ['127.0.0.1:80']);

  const log = join(folder, 'agent.log');
  const running = start(process.execPath, [...args, 'run', '-c', file], log, environment({}));
  t.after(() => stop(running));
  await until('three peers', async () => ((await peers(nginx, 'web'))?.length ?? 0) >= 3);
});

test('an upstream has no key of another kind of source', async (t) => {
  const agent = agentWith(t, {
    file: 'source/dummy.ts',
    text: dummy,
    list: 'source/kinds.ts',
    line: "export { dummy } from './dummy.ts';",
  });
  const { parseConfig } = await import(join(agent, 'config/file.ts'));
  assert.throws(
    () => parseConfig('upstreams: { web: { source: dummy, on_port: 80, service: a } }', 'x'),
    /x:1: upstreams\.web\.service: not a key that can be set here$/,
  );
});
