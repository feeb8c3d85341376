// A demo service: answers every request with its own name, keeps itself
// registered in Consul with a health check, and leaves before it stops.
import { createServer } from 'node:http';
import { hostname, networkInterfaces } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

const name = hostname();
const port = 8080;
const address = Object.values(networkInterfaces())
  .flat()
  .find((each) => each?.family === 'IPv4' && !each.internal)?.address;
const consul = `${process.env.CONSUL_HTTP_ADDR}/v1/agent/service`;

const server = createServer((request, response) => {
  response.end(request.url === '/health' ? '' : `${name}\n`);
});
// Longer than OpenResty keeps an idle connection, so that it never sends a
// request into one that is just being closed.
server.keepAliveTimeout = 120_000;

/**
 * @param {string} path after `/v1/agent/service/`
 * @param {object} [body]
 * @throws when Consul cannot be reached or refuses
 */
async function put(path, body) {
  const signal = AbortSignal.timeout(3_000);
  const answer = await fetch(`${consul}/${path}`, {
    method: 'PUT',
    body: body === undefined ? null : JSON.stringify(body),
    signal,
  });
  if (!answer.ok) throw new Error(`Consul answers ${answer.status}: ${await answer.text()}`);
}

async function isRegistered() {
  const answer = await fetch(`${consul}/${name}`, { signal: AbortSignal.timeout(3_000) });
  await answer.arrayBuffer();
  return answer.status === 200;
}

async function register() {
  await put('register', {
    Name: 'web',
    ID: name,
    Address: address,
    Port: port,
    Check: {
      HTTP: `http://${address}:${port}/health`,
      Interval: '1s',
      Timeout: '1s',
      DeregisterCriticalServiceAfter: '1m',
    },
  });
  console.log(`${name} is registered at ${address}:${port}`);
}

let stopping = false;
process.once('SIGTERM', async () => {
  stopping = true;
  await put(`deregister/${name}`).catch((error) => console.error(`not deregistered: ${error}`));
  // What was sent here before the news got around is still answered.
  await sleep(500);
  server.close(() => process.exit());
  server.closeIdleConnections();
});

server.listen(port);
// Again and again: Consul may start after us, and one in -dev mode that is
// restarted has forgotten us.
while (!stopping) {
  try {
    if (!(await isRegistered())) await register();
  } catch (error) {
    console.error(`not registered: ${error}`);
  }
  await sleep(1_000);
}
