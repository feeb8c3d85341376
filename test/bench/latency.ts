// `npm run bench`: how long from a write to Consul until the first request that
// OpenResty routes by the new state, beside the floor of any sidecar on this
// machine: a blocking query that returns, then one bare HTTP POST to nginx. The
// floor has no requests to route meanwhile: bare-loop.mjs, which does just these
// two by node:http, shows what they cost.
//
//   npm run bench -- [--changes 200] [--agent other/dist/main.js]
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { Backend } from '../stack/backend.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { stop, until } from '../stack/process.ts';
import { authorization, tokenFile } from '../stack/token.ts';
import { percentile } from './statistics.ts';

const { values: options } = parseArgs({
  options: {
    changes: { type: 'string', default: '200' },
    agent: { type: 'string', default: 'dist/main.js' },
  },
});
const changes = Number(options.changes);
const client = new Agent({ keepAlive: true });

async function send(url: string, method = 'GET', body = ''): Promise<string> {
  const sent = request(url, { method, agent: client });
  sent.end(body);
  const [response] = await once(sent, 'response');
  let text = '';
  for await (const chunk of response) text += chunk;
  return text.trim();
}

/** Milliseconds from the write until the start of the first request that the wanted backend answers. */
async function routed(url: string, write: () => Promise<void>, wanted: string): Promise<number> {
  const began = performance.now();
  const written = write();
  for (;;) {
    const sent = performance.now();
    if ((await send(url)) === wanted) {
      await written;
      return sent - began;
    }
  }
}

/** Milliseconds from the write until a blocking query has returned and a POST to nginx is answered. */
async function floor(consul: Consul, nginx: Nginx, write: () => Promise<void>): Promise<number> {
  const query = `${consul.address}/v1/health/service/floor?stale`;
  const index = await consul.http('health/service/floor').then((r) => r.headers['x-consul-index']);
  const change = send(`${query}&index=${index}&wait=30s`);
  // The query must be waiting when the write comes.
  await new Promise((resolve) => setTimeout(resolve, 5));
  const began = performance.now();
  const written = write();
  JSON.parse(await change);
  await send(`${nginx.url}/post`, 'POST', '{}');
  const took = performance.now() - began;
  await written;
  return took;
}

function row(name: string, ...cells: string[]): string {
  return `${name.padEnd(48)}${cells.map((cell) => cell.padStart(10)).join('')}\n`;
}

function startNginx(folder: string): Promise<Nginx> {
  return Nginx.start(folder, {
    workers: 1,
    http: ({ port }) => `
    upstream any {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance() }
        keepalive 64;
    }
    server {
        listen 127.0.0.1:${port};
        location = /post { content_by_lua_block { ngx.req.read_body() ngx.exit(204) } }
        location ~ ^/(?<reloadless_upstream>.+) {
            proxy_pass http://any;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }`,
  });
}

async function main(): Promise<void> {
  const { folder, remove } = temporaryFolder();
  const backends = [await Backend.start('even'), await Backend.start('odd')];
  const consul = await Consul.start(join(folder, 'consul'));
  const nginx = await startNginx(join(folder, 'nginx'));
  // Of its own: what one writes would be another's doing to the other, who then looks first.
  const bareNginx = await startNginx(join(folder, 'bare-nginx'));
  const ends: ChildProcess[] = [];
  const start = (...command: string[]) => {
    ends.push(spawn(process.execPath, command, { stdio: ['ignore', 'ignore', 'inherit'] }));
  };
  const openresty = ['--openresty', nginx.admin, '--token-file', tokenFile];
  const targets = ['--consul', consul.address, ...openresty, '--snapshot', nginx.snapshot];
  start(resolve(checkout, options.agent), 'run', ...targets, '--service', 'web');
  const bareLoop = join(checkout, 'test/bench/bare-loop.mjs');
  start(bareLoop, consul.address, bareNginx.admin, authorization, 'bare');

  const register = (name: string, i: number) =>
    consul.register({ name, id: name, address: '127.0.0.1', port: backends[i % 2]?.port ?? 0 });
  const urls = { web: `${nginx.url}/web`, bare: `${bareNginx.url}/bare` };
  const change = (name: keyof typeof urls, i: number) =>
    routed(urls[name], () => register(name, i), i % 2 === 0 ? 'even' : 'odd');
  try {
    for (const name of ['floor', 'web', 'bare']) await register(name, 0);
    for (const [name, url] of Object.entries(urls)) {
      await until(`${name} serves`, async () => (await send(url)) === 'even');
    }

    const floors: number[] = [];
    const bare: number[] = [];
    const found: number[] = [];
    for (let i = 1; i <= changes; i += 1) {
      floors.push(await floor(consul, nginx, () => register('floor', i)));
      bare.push(await change('bare', i));
      found.push(await change('web', i));
    }
    const atOnce: number[] = [];
    for (let i = 1; i <= changes; i += 1) atOnce.push(await change('web', i + changes));

    process.stdout.write(`${changes} changes, ms from the write to Consul\n`);
    process.stdout.write(row('', 'median', 'p99', 'of floor', 'of bare'));
    const base = percentile(floors, 0.5);
    for (const [name, times] of [
      ['floor: blocking query + one POST to nginx', floors],
      ['bare loop: first request routed anew', bare],
      ['Reloadless: first request routed anew', found],
      ['the same, each change at once after the last', atOnce],
    ] as const) {
      const median = percentile(times, 0.5);
      const numbers = [median, percentile(times, 0.99), median / base];
      const cells = [...numbers, median / percentile(bare, 0.5)].map((n) => n.toFixed(2));
      process.stdout.write(row(name, ...cells));
    }
  } finally {
    for (const end of ends) await stop(end);
    await nginx.stop();
    await bareNginx.stop();
    await consul.stop();
    for (const backend of backends) await backend.stop();
    client.destroy();
    remove();
  }
}

await main();
