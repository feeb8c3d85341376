// Proves that the first push of a large table goes on where it stopped: what was
// applied when the agent was killed, or its connection cut, is not sent again.
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { Agent } from '../stack/agent.ts';
import { until } from '../stack/process.ts';
import { Recorder } from '../stack/recorder.ts';
import { peers, startStack } from '../stack/stack.ts';

const stack = await startStack();
after(() => stack.stop());
const count = 4000;
/** The answer to this part is the one that is lost. */
const cut = 4;

const ids = Array.from({ length: count }, (_, i) => `${i}`.padStart(100, 'x'));
for (let from = 0; from < count; from += 50) {
  // One transaction of Consul has 64 changes at most.
  const json = ids.slice(from, from + 50).map((ID, i) => {
    const Service = { ID, Service: 'web', Address: '10.0.0.1', Port: 1 + from + i };
    return { Service: { Verb: 'set', Node: 'far', Service } };
  });
  const Node = { Node: 'far', Address: '10.0.0.1' };
  await stack.consul.http.put('txn', { json: [{ Node: { Verb: 'set', Node } }, ...json] });
}

/** The peers that a write is about. */
function sent({ body }: { body: string }): string[] {
  return Object.keys(JSON.parse(body).upstreams.web.peers);
}

for (const what of ['the agent is killed', 'its connection is cut']) {
  test(`a first push in the midst of which ${what} resumes`, async (t) => {
    await stack.nginx.http.put('v1/upstreams', { json: { upstreams: {} } });
    const recorder = await Recorder.start(stack.nginx.adminPort);
    t.after(() => recorder.stop());
    const flags = ['--consul', stack.consul.address, '--openresty', recorder.address];
    const agent = Agent.start(join(stack.folder, `${what}.log`), [...flags, '--service', 'web']);
    t.after(() => agent.stop());
    const patches = () => recorder.recorded.filter(({ method }) => method === 'PATCH');
    const applied = () => patches().filter(({ status }) => status === 200);

    let stopped = false;
    recorder.loses = () => {
      if (stopped || patches().length < cut) return false;
      stopped = true;
      if (what === 'the agent is killed') process.kill(agent.pid ?? 0, 'SIGKILL');
      return true;
    };
    await until('it is cut short', () => stopped);
    if (what === 'the agent is killed') {
      await agent.stop();
      agent.up();
    }
    const has = async () => (await peers(stack.nginx, 'web'))?.length === count;
    await until('all is there', has, 40);

    assert.ok(applied().length > cut + 1, `${applied().length} parts`);
    assert.ok(Math.max(...patches().map(({ body }) => body.length)) <= 32 * 1024);
    const all = applied().flatMap(sent);
    assert.equal(all.length, count, 'a peer was sent again');
    // The one whose answer was lost may have been asked for once more, in vain.
    const refused = patches().filter(({ status }) => status !== 200);
    assert.ok(refused.every(({ status }) => status === 412) && refused.length <= 1);
  });
}
