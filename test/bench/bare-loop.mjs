// The floor of any sidecar in Node: the same blocking query and the same PATCH
// as the agent's, by node:http alone (node:http2 where Consul is at https://),
// without a check of anything.
//
//   node bare-loop.mjs CONSUL ADMIN AUTHORIZATION SERVICE…

import { Agent } from 'node:http';
import { createAsker, createPatcher, send } from './loop.mjs';

const [consul = '', admin = '', authorization = '', ...services] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true });
const { ask } = createAsker(consul);

/** @param {string} service */
async function watch(service) {
  let index = '0';
  const patchOf = createPatcher(service, 'bare');
  for (;;) {
    const answer = await ask(`/v1/health/service/${service}?stale&index=${index}&wait=25s`);
    index = String(answer.headers['x-consul-index']);
    const patch = patchOf(JSON.parse(answer.text));
    if (patch === undefined) continue;
    const body = JSON.stringify(patch);
    const headers = {
      authorization,
      'content-type': 'application/merge-patch+json',
      'content-length': Buffer.byteLength(body),
    };
    await send(`${admin}/v1/upstreams`, { method: 'PATCH', agent, headers }, body);
  }
}

for (const service of services) watch(service);
