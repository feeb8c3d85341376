// The same loop as bare-loop.mjs, by the packages that the agent is made of:
// `consul` asks, `got` sends, `pino` writes one line. What an agent on these
// packages costs at least, without a check of anything.
//
//   node packages-loop.mjs CONSUL ADMIN AUTHORIZATION SERVICE…

import { EventEmitter } from 'node:events';
import { Agent } from 'node:http';
import Consul from 'consul';
import got from 'got';
import pino from 'pino';
import { createPatcher } from './loop.mjs';

const [consulUrl = '', admin = '', authorization = '', ...services] = process.argv.slice(2);
const agent = new Agent({ keepAlive: true });
/** @type {any} */
const options = { baseUrl: `${consulUrl}/v1`, agent };
const consul = new Consul(options);
const log = pino(pino.destination({ dest: 2, sync: true }));
const openresty = got.extend({
  agent: { http: agent },
  retry: { limit: 0 },
  decompress: false,
  headers: { authorization, 'content-type': 'application/merge-patch+json' },
});

/** @param {string} service */
async function watch(service) {
  let index = '0';
  const patchOf = createPatcher(service, 'packages');
  for (;;) {
    const ctx = Object.assign(new EventEmitter(), { includeResponse: true });
    /** @type {any} */
    const query = { service, stale: true, index, wait: '25s', ctx };
    /** @type {any} */
    const [response, entries] = await consul.health.service(query);
    index = response.headers['x-consul-index'];
    const patch = patchOf(entries);
    if (patch === undefined) continue;
    await openresty.patch(`${admin}/v1/upstreams`, { body: JSON.stringify(patch) });
    log.info({ upstream: service }, `${service}: pushed`);
  }
}

for (const service of services) watch(service);
