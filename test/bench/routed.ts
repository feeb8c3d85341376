// What the benchmarks of propagation share: how long it is from a write to
// Consul until a request is routed by it.
import { once } from 'node:events';
import { Agent, request } from 'node:http';
import type { NginxOptions } from '../stack/nginx.ts';

const client = new Agent({ keepAlive: true });

/** One request on a kept connection. @returns the body of its answer */
export async function send(url: string, method = 'GET', body = ''): Promise<string> {
  const sent = request(url, { method, agent: client });
  sent.end(body);
  const [response] = await once(sent, 'response');
  let text = '';
  for await (const chunk of response) text += chunk;
  return text.trim();
}

/** Ends the connections that `send` has kept. */
export function closeConnections(): void {
  client.destroy();
}

/** Milliseconds from the write until the start of the first request that the wanted backend answers. */
export async function routed(
  url: string,
  write: () => Promise<void>,
  wanted: string,
): Promise<number> {
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

/** Serves `/NAME` by the upstream NAME; `/post` takes a POST and does nothing. */
export const perPath: NginxOptions['http'] = ({ port }) => `
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
    }`;
