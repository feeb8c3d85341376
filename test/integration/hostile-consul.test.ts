// Entries of a hostile Consul, between two good ones, with the built agent and a
// real nginx. A fake Consul, since the real one keeps most of them out.
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Agent } from '../stack/agent.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { Nginx } from '../stack/nginx.ts';
import { until } from '../stack/process.ts';
import { live, peers } from '../stack/stack.ts';
import { FakeConsul, text } from '../unit/fake-consul.ts';

const { folder, remove } = temporaryFolder();
let nginx: Nginx;
before(async () => {
  nginx = await Nginx.start(join(folder, 'nginx'), {
    http: ({ port }) => `server { listen 127.0.0.1:${port}; }`,
  });
});
after(async () => {
  await nginx.stop();
  remove();
});

/** @param service members of the service, as text of JSON */
function entry(id: string, port: number, service = ''): string {
  return `{"Node":{"Node":"n1","Address":"127.0.0.1"},"Checks":[],
    "Service":{"ID":"${id}","Port":${port}${service}}}`;
}

const depth = 100_000;
const euros = '€'.repeat(200);

/** What each is, as text of JSON, and the ID with which it serves, if it does. */
const hostile: [what: string, entry: string, id?: string][] = [
  ['an ID that cannot become text', entry('x', 1003, ',"ID":{"toString":1}')],
  ['a deep Meta', entry('x', 1003, `,"Meta":{"a":${'['.repeat(depth)}${']'.repeat(depth)}}`)],
  ['a deep value', `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`],
  ['half of a surrogate pair as its ID', entry('x\\ud800', 1003), 'x\ufffd'],
  ['control characters as its ID', entry('x\\u0000\\u001b[31m', 1003), 'x??[31m'],
  ['an ID of 600 bytes', entry(euros, 1003), '€'.repeat(85)],
  ['__proto__ as its ID', entry('__proto__', 1003), '__proto__'],
  ['half of a surrogate pair as its zone', entry('x', 1003, ',"Meta":{"zone":"\\ud800"}'), 'x'],
  [
    'keys that mean something to JavaScript',
    entry('x', 1003, ',"Meta":{"__proto__":"y","constructor":"y","toString":"y"}'),
    'x',
  ],
  ['a port without an end', entry('x', 1003, ',"Port":1e999')],
  ['an address with a zone', entry('x', 1003, ',"Address":"fe80::1%eth0"')],
  ['a string of a megabyte as its address', entry('x', 1003, `,"Address":"${'x'.repeat(1e6)}"`)],
  ['nothing', 'null'],
];

for (const [what, bad, id] of hostile) {
  test(`the two good ones serve, and the agent lives, beside: ${what}`, async (t) => {
    const answer = (index: number, port: number) =>
      text(index, `[${entry('a', 1001)},${bad},${entry('z', port)}]`);
    let held: ServerResponse | undefined;
    const hold = (response: ServerResponse) => {
      held = response;
    };
    const fake = await FakeConsul.start([answer(7, 1002), hold]);
    const log = join(folder, `${t.name}.log`);
    const flags = ['--consul', fake.address, '--openresty', nginx.admin, '--service', 'web'];
    const agent = Agent.start(log, [...flags, '--snapshot', join(folder, 'snapshot')]);
    t.after(async () => {
      await agent.stop();
      await fake.stop();
    });

    async function serve(...ports: number[]): Promise<void> {
      const all = id === undefined ? ports : [...ports, 1003].sort();
      const expected = all.map((port) => `127.0.0.1:${port}`).join();
      await until(`${expected} serve`, async () => {
        assert.equal(agent.exitCode, null, agent.log.slice(-500));
        return (await peers(nginx, 'web'))?.join() === expected;
      });
    }

    await serve(1001, 1002);
    const { upstreams } = await live(nginx);
    assert.equal(upstreams.web?.peers['127.0.0.1:1003']?.id, id);
    await until('the next query', () => held !== undefined);
    if (held !== undefined) answer(8, 1004)(held);
    await serve(1001, 1004);
    for (const line of agent.messages) assert(line.length < 1000, line.slice(0, 1000));
    if (id === undefined) assert(agent.messages.some((line) => line.startsWith('web: left out: ')));
  });
}
