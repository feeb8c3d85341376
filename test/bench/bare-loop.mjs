// The floor of any sidecar in Node: the same blocking query and the same PATCH
// as the agent's, by node:http alone, without a check of anything.
//
//   node bare-loop.mjs CONSUL ADMIN AUTHORIZATION SERVICE…

import { Agent, request } from 'node:http';
import { createPatcher } from './loop.mjs';

const [consul = '', admin = '', authorization = '', ...services] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true });

/** @param {string} url @param {string} [method] @param {string} [body] */
function send(url, method = 'GET', body = undefined) {
  return new Promise((resolve, reject) => {
    const headers = {
      authorization,
      'content-type': 'application/merge-patch+json',
      ...(body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }),
    };
    const sent = request(url, { method, agent, headers }, (response) => {
      /** @type {Buffer[]} */
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        resolve({ text, headers: response.headers });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

/** @param {string} service */
async function watch(service) {
  let index = '0';
  const patchOf = createPatcher(service, 'bare');
  for (;;) {
    const url = `${consul}/v1/health/service/${service}?stale&index=${index}&wait=25s`;
    const answer = await send(url);
    index = answer.headers['x-consul-index'];
    const patch = patchOf(JSON.parse(answer.text));
    if (patch === undefined) continue;
    await send(`${admin}/v1/upstreams`, 'PATCH', JSON.stringify(patch));
  }
}

for (const service of services) watch(service);
