// `npm start`: Consul, OpenResty, three backends and the agent on this machine,
// until Ctrl-C.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Backend } from './backend.ts';
import { Consul } from './consul.ts';
import { temporaryFolder } from './folder.ts';
import { checkout } from './install.mjs';
import { Nginx } from './nginx.ts';
import { stop, until } from './process.ts';
import { tokenFile } from './token.ts';

const names = ['blue', 'green', 'red'];
/** What must be undone, last first. */
const undo: (() => unknown)[] = [];

async function end(code: number): Promise<never> {
  for (const step of undo.reverse()) await step();
  process.exit(code);
}

function startAgent(config: string): void {
  const main = join(checkout, 'dist/main.js');
  const args = [main, 'run', '--config', config, '--log-format', 'pretty'];
  const agent = spawn(process.execPath, args, { detached: true, stdio: 'inherit' });
  const onExit = (code: number | null) => {
    process.stderr.write(`The agent ended (${code}).\n`);
    void end(1);
  };
  agent.once('exit', onExit);
  undo.push(() => {
    agent.off('exit', onExit);
    return stop(agent);
  });
}

function guide(nginx: Nginx, consul: Consul, backends: Backend[], config: string): string {
  const agent = `${consul.address}/v1/agent`;
  return `
Reloadless is up: ${names.join(', ')} take turns behind OpenResty.

  requests     ${nginx.url}/
  admin API    ${nginx.admin}/v1/upstreams, for who has the token of ${tokenFile}
  Consul       ${consul.address}/ui
  pids         nginx ${nginx.pid}, its workers ${nginx.workers().join(' and ')}: they stay

Try, in another terminal:

  # the backends take turns
  for i in 1 2 3 4 5 6; do curl -s ${nginx.url}/; done

  # take green out by hand: it gets no request from now on
  curl -X PUT '${agent}/service/maintenance/green?enable=true'

  # and bring it back
  curl -X PUT '${agent}/service/maintenance/green?enable=false'

  # make red fail its health check: Consul sees it within a second
  curl -X POST http://${backends[2]?.address}/fail
  curl -X POST http://${backends[2]?.address}/recover

  # deregister blue for good
  curl -X PUT ${agent}/service/deregister/blue

  # the table as OpenResty has it
  curl -H "Authorization: Bearer $(cat ${tokenFile})" ${nginx.admin}/v1/upstreams

  # what is live, and what a sync would change
  node dist/main.js status --config ${config}
  node dist/main.js sync --dry-run --config ${config}

Ctrl-C stops everything. What the agent does:

`;
}

async function main(): Promise<void> {
  const { folder, remove } = temporaryFolder();
  undo.push(remove);

  process.stdout.write('Starting Consul, OpenResty, three backends and the agent …\n');
  const consul = await Consul.start(join(folder, 'consul'));
  undo.push(() => consul.stop());

  const nginx = await Nginx.start(join(folder, 'nginx'), {
    http: ({ port }) => `
    upstream web {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("web") }
        keepalive 64;
    }
    server {
        listen 127.0.0.1:${port};
        location / {
            access_by_lua_block { require("reloadless").access("web") }
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }`,
  });
  undo.push(() => nginx.stop());

  const backends: Backend[] = [];
  for (const name of names) {
    const backend = await Backend.start(name);
    undo.push(() => backend.stop());
    backends.push(backend);
    await consul.register({
      name: 'web',
      id: name,
      address: '127.0.0.1',
      port: backend.port,
      check: 'http',
    });
  }

  const config = join(folder, 'reloadless.yml');
  writeFileSync(
    config,
    `consul: { address: "${consul.address}" }
openresty: [{ address: "${nginx.admin}", token_file: ${tokenFile} }]
snapshot: ${nginx.snapshot}
upstreams: { web: {} }
`,
  );
  startAgent(config);
  await until('a request is served', async () => (await fetch(nginx.url)).ok);
  process.stdout.write(guide(nginx, consul, backends, config));
}

process.once('SIGINT', () => void end(0));
process.once('SIGTERM', () => void end(0));
main().catch((error: unknown) => {
  process.stderr.write(`${error}\n`);
  return end(1);
});
