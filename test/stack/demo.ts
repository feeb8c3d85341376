// `npm start`: Consul, OpenResty, three backends and the agent on this machine,
// until Ctrl-C. Whoever is killed is said to be gone, and started again when asked.

import { writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { join } from 'node:path';
import { Backend } from './backend.ts';
import { Consul } from './consul.ts';
import { agentPart, capital, consulPart, nginxPart, type Part } from './demo-parts.ts';
import { temporaryFolder } from './folder.ts';
import { Nginx } from './nginx.ts';
import { until } from './process.ts';
import { close, listen } from './server.ts';
import { tokenFile } from './token.ts';

const names = ['blue', 'green', 'red'];
/** What must be undone, last first. */
const undo: (() => unknown)[] = [];

async function end(code: number): Promise<never> {
  for (const step of undo.reverse()) await step();
  process.exit(code);
}

function say(text: string): void {
  process.stdout.write(`\n${text}\n\n`);
}

/** @param control address of the server that starts parts again */
function guide(
  nginx: Nginx,
  consul: Consul,
  backends: Backend[],
  config: string,
  parts: Part[],
  control: string,
): string {
  const agent = `${consul.address}/v1/agent`;
  return `
Reloadless is up: ${names.join(', ')} take turns behind OpenResty.

  requests     ${nginx.url}/
  admin API    ${nginx.admin}/v1/upstreams, for who has the token of ${tokenFile}
  Consul       ${consul.address}/ui

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

Kill what you like:

${parts.map((part) => commands(part, control)).join('\n\n')}

Ctrl-C stops everything. What the agent does:
`;
}

/** How to kill a part, and how to start it again. */
function commands(part: Part, control: string): string {
  return `${part.kills()}

  # start ${part.name} again
  curl -X POST ${control}/start/${part.id}`;
}

/** Says of each part once that it has ended. @returns a function that stops that */
function watch(parts: Part[], control: string): () => void {
  /** How often in a row it was found to have ended. */
  const gone = new Map<Part, number>();
  const timer = setInterval(() => {
    for (const part of parts) {
      const news = part.news?.();
      if (news !== undefined) say(`${news}\n\n${part.kills()}`);
      const times = part.isUp() ? 0 : (gone.get(part) ?? 0) + 1;
      gone.set(part, times);
      // By the second time workers that were killed with their master are gone, too.
      if (times === 2) say(`${part.absence()}\n\n  curl -X POST ${control}/start/${part.id}`);
    }
  }, 100);
  return () => clearInterval(timer);
}

/** A server on loopback that starts parts again when it is asked to. @returns its address */
async function startControl(parts: Part[]): Promise<string> {
  let last: Promise<unknown> = Promise.resolve();
  async function startAgain(part: Part): Promise<string> {
    if (part.isUp()) return `${part.name} has not ended.\n`;
    await part.up();
    say(`${capital(part.name)} is up again.\n\n${part.kills()}`);
    return `${part.name} is up again.\n`;
  }
  const server = createServer(({ method, url }, response) => {
    const part = parts.find(({ id }) => url === `/start/${id}`);
    if (method !== 'POST' || part === undefined) {
      response.writeHead(404).end(`POST to /start/NAME: ${parts.map(({ id }) => id).join(', ')}\n`);
      return;
    }
    // One after the other, so that two who ask do not start it twice.
    last = last
      .then(() => startAgain(part))
      .then(
        (text) => response.end(text),
        (error) => response.writeHead(500).end(`${error}\n`),
      );
  });
  const address = await listen(server);
  undo.push(() => close(server));
  return `http://${address}`;
}

async function main(): Promise<void> {
  const { folder, remove } = temporaryFolder();
  undo.push(remove);

  process.stdout.write('Starting Consul, OpenResty, three backends and the agent ...\n');
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
  undo.push(async () => {
    await nginx.stop();
    for (const pid of nginx.orphans()) process.kill(pid, 'SIGTERM');
  });

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
  const agent = agentPart(config);
  undo.push(() => agent.stop());
  await agent.up();
  await until('a request is served', async () => (await fetch(nginx.url)).ok);

  const parts = [agent, consulPart(consul), nginxPart(nginx)];
  const control = await startControl(parts);
  process.stdout.write(guide(nginx, consul, backends, config, parts, control));
  undo.push(watch(parts, control));
}

let isEnding = false;
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  // A Ctrl-C comes twice, from the terminal and from npm.
  process.on(signal, () => {
    if (!isEnding) void end(0);
    isEnding = true;
  });
}
main().catch((error: unknown) => {
  process.stderr.write(`${error}\n`);
  return end(1);
});
