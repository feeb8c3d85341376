// `npm run bench`: how long from a write to Consul until the first request that
// OpenResty routes by the new state, beside the floor of any sidecar on this
// machine: a blocking query that returns, then one bare HTTP POST to nginx.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { Backend } from '../stack/backend.ts';
import { Consul } from '../stack/consul.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { Nginx } from '../stack/nginx.ts';
import { stop, until } from '../stack/process.ts';
import { tokenFile } from '../stack/token.ts';
import { percentile } from './statistics.ts';

const changes = 200;
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
async function routed(nginx: Nginx, write: () => Promise<void>, wanted: string): Promise<number> {
  const began = performance.now();
  const written = write();
  for (;;) {
    const sent = performance.now();
    if ((await send(`${nginx.url}/`)) === wanted) {
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
  await send(`${nginx.url}/bare`, 'POST', '{}');
  const took = performance.now() - began;
  await written;
  return took;
}

async function main(): Promise<void> {
  const { folder, remove } = temporaryFolder();
  const backends = [await Backend.start('even'), await Backend.start('odd')];
  const consul = await Consul.start(join(folder, 'consul'));
  const nginx = await Nginx.start(join(folder, 'nginx'), {
    workers: 1,
    http: ({ port }) => `
    upstream web {
        server 127.0.0.1:1 down;
        balancer_by_lua_block { require("reloadless").balance("web") }
        keepalive 64;
    }
    server {
        listen 127.0.0.1:${port};
        location = /bare { content_by_lua_block { ngx.req.read_body() ngx.exit(204) } }
        location / {
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }
    }`,
  });
  const openresty = ['--openresty', nginx.admin, '--token-file', tokenFile];
  const targets = ['--consul', consul.address, ...openresty];
  const args = ['run', ...targets, '--service', 'web', '--snapshot', nginx.snapshot];
  const agent = spawn(process.execPath, [join(checkout, 'dist/main.js'), ...args], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });

  const register = (name: string, i: number) =>
    consul.register({ name, id: name, address: '127.0.0.1', port: backends[i % 2]?.port ?? 0 });
  try {
    await register('web', 0);
    await register('floor', 0);
    await until('the first peer serves', async () => (await send(nginx.url)) === 'even');

    const floors: number[] = [];
    const found: number[] = [];
    for (let i = 1; i <= changes; i += 1) {
      const wanted = i % 2 === 0 ? 'even' : 'odd';
      floors.push(await floor(consul, nginx, () => register('floor', i)));
      found.push(await routed(nginx, () => register('web', i), wanted));
    }

    const line = (name: string, values: number[]) =>
      `${name.padEnd(44)}${percentile(values, 0.5).toFixed(2).padStart(8)}${percentile(values, 0.99).toFixed(2).padStart(8)}\n`;
    process.stdout.write(`${changes} changes, ms from the write to Consul      median     p99\n`);
    process.stdout.write(line('floor: blocking query + one POST to nginx', floors));
    process.stdout.write(line('Reloadless: first request routed anew', found));
    const ratio = percentile(found, 0.5) / percentile(floors, 0.5);
    process.stdout.write(`ratio of the medians: ${ratio.toFixed(2)}\n`);
  } finally {
    await stop(agent);
    await nginx.stop();
    await consul.stop();
    for (const backend of backends) await backend.stop();
    client.destroy();
    remove();
  }
}

await main();
