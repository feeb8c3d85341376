// Plays the demo through from its own printed lines, with requests running.
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, get } from 'node:http';
import { after, before, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { promisify } from 'node:util';
import { checkout } from '../stack/install.mjs';
import { isRunning, stop, until } from '../stack/process.ts';

const shell = promisify(execFile);

/** What the demo has printed so far. */
let printed = '';
// Its stdin is no terminal.
const demo = spawn(process.execPath, ['--import', 'tsx', 'test/stack/demo.ts'], {
  cwd: checkout,
  stdio: ['ignore', 'pipe', 'inherit'],
});
demo.stdout.on('data', (chunk) => {
  printed += chunk;
});

/** Pids that the demo has named. */
const pids = (): number[] =>
  [...printed.matchAll(/kill -9 (-?\d+)/g)].map(([, pid]) => Number(pid));

before(() => until('the demo is up', () => printed.includes('Ctrl-C')));
after(() => stop(demo));

/** Types the last block of lines whose comment begins so. */
async function type(comment: string): Promise<void> {
  const at = printed.lastIndexOf(`# ${comment}`);
  assert.notEqual(at, -1, `the demo prints nothing on: ${comment}\n${printed}`);
  const [command = ''] = printed.slice(at).split(/\n\s*\n/);
  await shell('bash', ['-ec', command], { cwd: checkout });
}

const url = () => /requests\s+(\S+)/.exec(printed)?.[1] ?? '';

/** @returns who answered, or why nobody did */
function ask(agent: Agent): Promise<string> {
  return new Promise((resolve) => {
    const request = get(url(), { agent }, (response) => {
      let body = '';
      response.on('data', (chunk) => {
        body += chunk;
      });
      response.on('error', (error) => resolve(error.message));
      response.on('end', () => {
        resolve(response.statusCode === 200 ? body.trim() : String(response.statusCode));
      });
    });
    request.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}

const clients = 2;
const table: string[] = [];

/**
 * Sends requests from two clients, a connection each, while the body runs and
 * half a second longer.
 *
 * @returns what was no backend's answer
 */
async function underLoad(what: string, body: () => Promise<void>): Promise<string[]> {
  const failed: string[] = [];
  let count = 0;
  let isEnding = false;
  async function send(): Promise<void> {
    const agent = new Agent({ keepAlive: false });
    while (!isEnding) {
      const answer = await ask(agent);
      count += 1;
      if (!/^(blue|green|red)$/.test(answer)) failed.push(answer);
    }
  }
  const sent = Promise.all(Array.from({ length: clients }, send));
  try {
    await body();
    await setTimeout(500);
  } finally {
    isEnding = true;
    await sent;
  }
  const kinds = [...new Set(failed)].map((kind) => {
    return `${kind} ${failed.filter((other) => other === kind).length} times`;
  });
  table.push(`${what}: ${count} requests, failed: ${kinds.join(', ') || 'nothing'}`);
  return failed;
}

/** Waits until the demo has said this since then. */
async function says(pattern: RegExp, since: number): Promise<void> {
  await until(`the demo says ${pattern}`, () => pattern.test(printed.slice(since)));
}

/** Kills a part and starts it again as the demo says. @returns what failed at each of the two */
async function killAndStart(what: string, name = what): Promise<[string[], string[]]> {
  const since = printed.length;
  const killed = await underLoad(`${what} killed`, async () => {
    await type(`kill ${what}`);
    await says(new RegExp(`${what} has ended`, 'i'), since);
  });
  const started = await underLoad(`${name} started again`, async () => {
    await type(`start ${name} again`);
    await says(new RegExp(`${name} is up again`, 'i'), since);
  });
  return [killed, started];
}

test('what the demo says to do with the backends fails no request', async () => {
  const failed = await underLoad('the backends', async () => {
    await type('the backends take turns');
    await type('take green out by hand');
    await type('and bring it back');
    await type('make red fail its health check');
    await type('the table as OpenResty has it');
    await type('what is live');
  });
  assert.deepEqual(failed, []);
});

test('the agent, killed and started again, fails no request', async () => {
  assert.deepEqual(await killAndStart('the agent'), [[], []]);
});

test('the agent that was started again pushes', async () => {
  await type('take green out by hand');
  await until('green gets no request', async () => {
    const answers = await Promise.all(Array.from({ length: 6 }, () => ask(new Agent())));
    return !answers.includes('green');
  });
  await type('and bring it back');
});

test('Consul, killed and started again, fails no request', async () => {
  assert.deepEqual(await killAndStart('Consul'), [[], []]);
});

test('a killed worker of OpenResty costs no more than what it was answering', async () => {
  const since = printed.length;
  const failed = await underLoad('a worker of OpenResty killed', async () => {
    await type('kill a worker of OpenResty');
    await says(/[Ww]orker .* has ended/, since);
  });
  assert.ok(failed.length <= clients, failed.join());
});

test("OpenResty's killed master leaves workers that serve, until it is started again", async () => {
  const [killed, started] = await killAndStart("OpenResty's master", 'OpenResty');
  assert.deepEqual(killed, []);
  // For the moment between the old workers and the new ones nobody listens; no
  // request that was taken fails.
  for (const failure of started) assert.match(failure, /^(ECONNREFUSED|ECONNRESET)$/);
});

test('OpenResty, killed as a whole, serves from its snapshot, with all else dead', async () => {
  const since = printed.length;
  await type('kill the agent');
  await type('kill Consul');
  await says(/Consul has ended/, since);
  await type('kill OpenResty as a whole');
  await says(/OpenResty has ended/, since);
  assert.equal(await ask(new Agent()), 'ECONNREFUSED');
  await type('start OpenResty again');
  assert.deepEqual(
    await underLoad('OpenResty started, Consul and the agent dead', async () => {}),
    [],
  );
  await type('start Consul again');
  await type('start the agent again');
  await says(/The agent is up again/, since);
});

test('Ctrl-C ends all that the demo has named, and nothing else is left', async () => {
  const named = pids();
  assert.ok(named.length >= 10, `${named}`);
  const gone = once(demo, 'exit');
  demo.kill('SIGINT');
  // From npm, behind that of the terminal.
  await setTimeout(20);
  demo.kill('SIGINT');
  assert.deepEqual(await gone, [0, null]);
  assert.ok(!isRunning(demo));
  for (const pid of named) assert.throws(() => process.kill(pid, 0), { code: 'ESRCH' }, `${pid}`);
  console.log(table.join('\n'));
});
