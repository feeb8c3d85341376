// Hundreds of services over TLS from a real Consul to a real nginx: on how few
// connections, and what is seen of one that is cut and of a Consul that is restarted.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, reloadless } from '../stack/agent.ts';
import { Cable } from '../stack/cable.ts';
import { certify } from '../stack/certificate.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { freePort } from '../stack/ports.ts';
import { until } from '../stack/process.ts';
import { live, type Stack, startStack } from '../stack/stack.ts';

const count = 300;
const { folder, remove } = temporaryFolder();
const certificate = certify(folder);
const names = Array.from({ length: count }, (_, i) => `s${i}`);
let stack: Stack;
let cable: Cable;
let flags: string[];

async function register(name: string, port: number): Promise<void> {
  const service = { Service: name, ID: name, Address: '10.0.0.1', Port: port };
  const json = { Node: 'there', Address: '10.0.0.1', Service: service };
  await stack.consul.http.put('catalog/register', { json });
}

before(async () => {
  const https = await freePort();
  const { cert: cert_file, key: key_file } = certificate;
  stack = await startStack({}, { config: { cert_file, key_file, ports: { https } } });
  cable = await Cable.start(https);
  for (const name of names) await register(name, 1000);
  const config = stack.configure({
    consul: { address: `https://127.0.0.1:${cable.port}`, tls: { ca_file: cert_file } },
    upstreams: Object.fromEntries(names.map((name) => [name, {}])),
  });
  flags = ['--openresty', stack.nginx.admin, '--snapshot', stack.nginx.snapshot, '-c', config];
});
after(async () => {
  cable.stop();
  await stack.stop();
  remove();
});

/** The peers of each upstream. */
async function table(): Promise<Record<string, string[]>> {
  const { upstreams } = await live(stack.nginx);
  return Object.fromEntries(
    Object.entries(upstreams).map(([name, { peers }]) => [name, Object.keys(peers)]),
  );
}

function expected(ports: Record<string, number> = {}): Record<string, string[]> {
  return Object.fromEntries(names.map((name) => [name, [`10.0.0.1:${ports[name] ?? 1000}`]]));
}

async function becomes(wanted: Record<string, string[]>): Promise<void> {
  await until('nginx has it', async () => {
    assert.deepEqual(await table(), wanted);
    return true;
  });
}

test('a one-shot sync takes no more connections than it needs', async () => {
  const { code, stderr } = await reloadless(['sync', ...flags]);
  assert.deepEqual([code, stderr], [0, '']);
  await becomes(expected());
  assert.equal(cable.opened, 2);
});

test('they are followed on two connections, one of which is cut, and over a restart', async (t) => {
  const log = join(folder, 'agent.log');
  const agent = Agent.start(log, flags);
  t.after(() => agent.stop());
  const errors = () => {
    const lines = agent.log.split('\n').filter((line) => line.startsWith('{'));
    return lines.filter((line) => JSON.parse(line).level >= 50);
  };
  const said = () => agent.messages.filter((message) => message.startsWith('watches: '));
  await until('it is said', () => said().length > 0);
  assert.deepEqual(said(), [`watches: ${count} services over HTTP/2 on 2 connections`]);
  assert.equal(cable.connections.size, 2);

  const ports: Record<string, number> = {};
  const change = async (some: string[], port: number) => {
    for (const name of some) {
      await register(name, port);
      ports[name] = port;
    }
    await becomes(expected(ports));
  };
  await change(['s0', 's7', 's150', 's299'], 2000);

  await sleep(1_100);
  const { version } = await live(stack.nginx);
  const opened = cable.opened;
  for (const connection of [...cable.connections].slice(0, 1)) connection.destroy();
  await until('it is made again', () => cable.opened > opened && cable.connections.size === 2);
  await sleep(2_500);
  assert.equal((await live(stack.nginx)).version, version);
  assert.deepEqual([errors(), cable.opened], [[], opened + 1]);
  await change(names.slice(0, 20), 3000);

  await stack.consul.stop('SIGKILL');
  await until('it is an outage', () => errors().length > 0);
  await sleep(1_000);
  await stack.consul.up();
  await change(names.slice(100, 120), 4000);
  assert.deepEqual(errors().length, 1, errors().join('\n'));
  assert.ok(cable.connections.size <= 3, `${cable.connections.size} connections`);
  assert.equal(said().length, 1);
});
