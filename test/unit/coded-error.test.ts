// Proves that docs/errors.md says what the agent does about each error, that a
// line of the log has its code, and that an error of ours is nobody else's.
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { ConsulError } from '../../agent/consul/error.ts';
import { createTransport } from '../../agent/consul/protocol.ts';
import { createLog } from '../../agent/telemetry/log.ts';
import { stdout } from '../../agent/telemetry/writer.ts';
import { type Code, codes, passes, pauseAfter } from '../../agent/util/coded-error.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { freePort } from '../stack/ports.ts';
import { error as answerWith, FakeConsul } from './fake-consul.ts';

const query = { service: 'web', filter: undefined, consistency: 'default' } as const;
const { signal } = new AbortController();

test('docs/errors.md has every code, and what is done about it', () => {
  const page = readFileSync(new URL('../../docs/errors.md', import.meta.url), 'utf8');
  const rows = [...page.matchAll(/^\| `([^`]+)` \|.*\| (yes|no) \| ([^|]+) \|$/gm)];
  const written = rows.map(([, code, retries, again]) => {
    const isOfRun = !['–', 'with the next SIGHUP'].includes(again ?? '');
    return [code, retries === 'yes', isOfRun ? again?.replace(/, .*/, '') : undefined];
  });
  const known = Object.entries(codes).map(([code, { passes, again }], i) => {
    return [code, passes, written[i]?.[2] === undefined ? undefined : again];
  });
  assert.deepEqual(written, known);
});

test('a pause grows with the failures in a row, and has a bound', () => {
  const most = (code: Code, failures: number) => {
    const error = new ConsulError(code as ConsulError['code'], 'x');
    const pauses = Array.from({ length: 500 }, () => pauseAfter(error, failures));
    return Math.max(...pauses);
  };
  for (const [code, first, bound] of [
    ['openresty/unreachable', 100, 1000],
    ['consul/failed', 100, 10_000],
    ['snapshot/unwritten', 1000, 30_000],
  ] as const) {
    assert.ok(most(code, 1) <= first && most(code, 1) > first / 2, code);
    assert.ok(most(code, 100) <= bound && most(code, 100) > bound / 2, code);
  }
  assert.equal(most('openresty/changed', 10), 0);
  assert.ok(most('openresty/changed', 30) > 1000);
  assert.ok(pauseAfter(new ConsulError('consul/invalid', 'x'), 1) >= 30_000);
});

test('an error of ours is not tried again by work that ends, and slowly by work that goes on', () => {
  const error = new TypeError('x is not a function');
  assert.equal(passes(error), false);
  const pauses = Array.from({ length: 500 }, () => pauseAfter(error, 1));
  assert.ok(Math.max(...pauses) > 500);
});

test('a line of the log has the code, the cause and nothing of the request', async (t) => {
  const lines: string[] = [];
  t.mock.method(stdout, 'write', (line: string) => {
    lines.push(line);
  });
  const { client } = await clientOf(t, `http://127.0.0.1:${await freePort()}`, 'secret');
  const log = createLog({ level: 'info', format: 'json' });
  await client.health(query, signal).catch((error) => log.error({ err: error }, 'no'));
  log.info({ upstream: 'web' }, 'yes');
  const [first, second] = lines.map((line) => JSON.parse(line));
  assert.equal(first.code, 'consul/unreachable');
  assert.equal(first.err.code, 'consul/unreachable');
  assert.equal(first.err.cause.code, 'ECONNREFUSED');
  assert.ok(!lines.join().includes('secret'));
  assert.deepEqual(Object.keys(second), ['level', 'time', 'upstream', 'msg']);
});

test('what throws beside the connection stays what it is', async (t) => {
  const { config } = await clientOf(t, 'http://127.0.0.1:1');
  const [endpoint] = config.endpoints;
  assert(endpoint !== undefined);
  const transport = createTransport(endpoint, config, () => {});
  const rest = { token: undefined, pool: 'read', held: 0, timeout: 1000, what: 'Consul' } as const;
  await assert.rejects(
    transport.ask({ method: 'GET', path: '/not escaped', ...rest }, signal),
    (error) => error instanceof TypeError,
  );
});

test('a query that is given up ends with the reason for it', async (t) => {
  const fake = await FakeConsul.start([]);
  t.after(() => fake.stop());
  const { client } = await clientOf(t, fake.address);
  const abort = new AbortController();
  const asked = client.health(query, abort.signal);
  const why = new Error('it is enough');
  abort.abort(why);
  await assert.rejects(asked, why);
});

const answers: [status: number, text: string, code: Code][] = [
  [400, 'Invalid wait', 'consul/invalid'],
  [401, '', 'consul/refused'],
  [403, 'ACL not found', 'consul/refused'],
  [404, '', 'consul/unusable'],
  [429, 'rate limit exceeded', 'consul/busy'],
  [500, 'No cluster leader', 'consul/failed'],
  [500, 'Failed to create boolean expression evaluator: 1:5', 'consul/invalid'],
  [502, '', 'consul/failed'],
  [503, '', 'consul/busy'],
];

for (const [status, text, code] of answers) {
  test(`${status} ${text} is ${code}`, async (t) => {
    const fake = await FakeConsul.start([answerWith(status, text)]);
    t.after(() => fake.stop());
    const { client } = await clientOf(t, fake.address);
    await assert.rejects(client.health(query, signal), (error) => {
      return error instanceof ConsulError && error.code === code && error.status === status;
    });
  });
}

test('a token that is refused, and whose file has gone, is said to be both', async (t) => {
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const file = join(folder, 'token');
  writeFileSync(file, 'old');
  const fake = await FakeConsul.start([
    (response) => {
      remove();
      answerWith(403, 'ACL not found')(response);
    },
  ]);
  t.after(() => fake.stop());
  const env = { CONSUL_HTTP_TOKEN_FILE: file };
  const { consul } = resolveConfig({ service: ['web'], consul: fake.address }, env, {});
  const client = createConsulClient(consul);
  t.after(client.close);
  await assert.rejects(client.health(query, signal), (error) => {
    assert(error instanceof ConsulError);
    assert.equal(error.code, 'consul/refused');
    assert.match(error.message, /: 403, and token file .* ENOENT/);
    return (error.cause as Error).name === 'ConfigError';
  });
});

async function clientOf(t: TestContext, address: string, token = '') {
  const env = { CONSUL_HTTP_TOKEN: token };
  const { consul } = resolveConfig({ service: ['web'], consul: address }, env, {});
  const client = createConsulClient(consul);
  t.after(client.close);
  return { client, config: consul };
}
