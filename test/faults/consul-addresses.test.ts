// The agent of this machine and a server behind it are the two addresses of one
// Consul: the first is killed, and comes back.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { Agent } from '../stack/agent.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { until } from '../stack/process.ts';
import { peers } from '../stack/stack.ts';

test('a change is seen while the first address is dead, and when it is back', async (t) => {
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const server = await Consul.start(join(folder, 'server'));
  t.after(() => server.stop('SIGKILL'));
  const self: { DebugConfig: { SerfPortLAN: number } } = await server.http('agent/self').json();
  const near = await Consul.start(join(folder, 'near'), {
    server: false,
    bootstrap_expect: undefined,
    node_name: 'near',
    retry_join: [`127.0.0.1:${self.DebugConfig.SerfPortLAN}`],
    retry_interval: '1s',
  });
  t.after(() => near.stop('SIGKILL'));
  const nginx = await Nginx.start(join(folder, 'nginx'), {
    http: ({ port }) => `server { listen 127.0.0.1:${port}; }`,
  });
  t.after(() => nginx.stop());
  const file = join(folder, 'reloadless.yml');
  writeFileSync(
    file,
    JSON.stringify({
      consul: { address: [near.address, server.address] },
      openresty: [{ address: nginx.admin }],
      snapshot: join(folder, 'snapshot'),
      upstreams: { web: {} },
    }),
  );
  const agent = Agent.start(join(folder, 'log'), ['-c', file]);
  t.after(() => agent.stop());

  async function change(port: number): Promise<void> {
    await server.register({ name: 'web', id: 'web-1', address: '127.0.0.1', port });
    await until(`port ${port} serves`, async () => {
      return (await peers(nginx, 'web'))?.join() === `127.0.0.1:${port}`;
    });
  }

  await change(1001);
  await near.stop('SIGKILL');
  await change(1002);
  await near.up();
  await until(
    'the first is asked again',
    () => agent.log.includes(`${near.address} is asked again`),
    40,
  );
  await change(1003);
  const said = agent.messages.filter((line) => / is asked /.test(line));
  assert.equal(said.length, 2, said.join('\n'));
  assert.match(said[0] ?? '', new RegExp(`^Consul at ${server.address} is asked from now on: `));
});
