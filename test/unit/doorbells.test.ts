// Proves what doorbells do with answers that a real Consul does not show on
// demand: a server that is behind, or shows the past, a bell that is denied or cut.
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createConsulClient } from '../../agent/consul/api.ts';
import { repeatBlockingQuery } from '../../agent/consul/blocking-query.ts';
import { createCrowd } from '../../agent/consul/crowd.ts';
import { listedChecks, otherChecks, shownBy } from '../../agent/consul/doorbells/checks.ts';
import type { Place } from '../../agent/consul/transport.ts';
import { until } from '../stack/process.ts';
import { close, listen } from '../stack/server.ts';

/** Plays a Consul whose doorbells and services are what the test says. */
class Played {
  readonly requests: URL[] = [];
  /** The content of each service, with its index. */
  services = new Map<string, { index: number; node: string; status: string }>();
  critical: { index: number; list: object[] } = { index: 5, list: [] };
  registrations = 5;
  /** Answers otherwise. @returns whether it did */
  other: (url: URL, response: ServerResponse) => boolean = () => false;
  readonly held = new Map<ServerResponse, () => void>();
  readonly #server = createServer((request, response) => this.#answer(request, response));
  address = '';

  static async start(t: TestContext, count: number): Promise<Played> {
    const played = new Played();
    for (let i = 0; i < count; i += 1) played.set(`s${i}`, 5);
    played.address = `http://${await listen(played.#server)}`;
    t.after(() => close(played.#server));
    return played;
  }

  set(name: string, index: number, status = 'passing', node = 'n'): void {
    this.services.set(name, { index, node, status });
  }

  ring(list: object[]): void {
    this.critical = { index: this.critical.index + 1, list };
    for (const again of [...this.held.values()]) again();
  }

  /** The paths that were asked, without the looks at registrations. */
  asked(from = 0): string[] {
    const own = this.requests.slice(from).filter(({ pathname }) => !pathname.includes('catalog'));
    return own.map(({ pathname, searchParams }) => {
      return `${pathname.slice(4)}${searchParams.has('tag') ? '?tag' : ''}`;
    });
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? '', this.address);
    this.requests.push(url);
    if (!this.other(url, response)) this.#answerAs(url, response);
  }

  #answerAs(url: URL, response: ServerResponse): void {
    const asked = Number(url.searchParams.get('index') ?? 0);
    const [index, body] = this.#content(url);
    this.held.delete(response);
    if (asked >= index) {
      this.held.set(response, () => this.#answerAs(url, response));
      return;
    }
    const headers = { 'content-type': 'application/json', 'x-consul-index': String(index) };
    response.writeHead(200, headers).end(JSON.stringify(body));
  }

  #content(url: URL): [number, object] {
    if (url.pathname === '/v1/catalog/services') return [this.registrations, {}];
    if (url.pathname === '/v1/health/state/critical') {
      return [this.critical.index, this.critical.list];
    }
    if (url.pathname === '/v1/health/state/warning') return [1, []];
    const name = url.pathname.split('/').at(-1) ?? '';
    const { index, node, status } = this.services.get(name) ?? { index: 1, node: '', status: '' };
    const check = { Node: node, CheckID: name, Status: status };
    const entry = { Node: { Node: node }, Service: { ID: name }, Checks: [check] };
    return [index, url.searchParams.has('tag') ? [] : [entry]];
  }
}

const check = (service: string, modified: number, node = 'n') => {
  return { Node: node, CheckID: service, ServiceName: service, ModifyIndex: modified };
};

interface Followed {
  said: string[];
  /** How often each service was answered. */
  answers: Map<string, number>;
  /** The state of its check. */
  states: Map<string, string>;
  errors: string[];
}

/** Follows services until the test ends. */
function follow(
  t: TestContext,
  played: Played,
  count: number,
  max_connections = 8,
  place: (service: string) => Place = () => ({}),
): Followed {
  const followed: Followed = { said: [], answers: new Map(), states: new Map(), errors: [] };
  const { said, answers, states, errors } = followed;
  const file = { consul: { address: played.address, max_connections, datacenter: 'dc1' } };
  const { consul } = resolveConfig({ service: ['web'] }, {}, file);
  const client = createConsulClient(consul, undefined, (line, isWhole) => {
    said.push(`${isWhole ? '' : 'ERROR '}${line}`);
  });
  t.after(client.close);
  for (let i = 0; i < count; i += 1) {
    const abort = new AbortController();
    const service = `s${i}`;
    t.after(() => abort.abort());
    repeatBlockingQuery<unknown[]>({
      async ask(question, signal) {
        const asked = { service, filter: undefined, place: place(service), ...question };
        const query = { ...asked, consistency: 'stale' } as const;
        const { index, entries } = await client.health(query, signal);
        return { index, content: entries };
      },
      answered([entry]) {
        answers.set(service, (answers.get(service) ?? 0) + 1);
        const { Checks } = entry as { Checks: { Status: string }[] };
        states.set(service, Checks[0]?.Status ?? '');
        return true;
      },
      failed: (error) => errors.push(`${service}: ${error.code}`),
      wait: client.waits,
      signal: abort.signal,
    });
  }
  return followed;
}

/** Waits until all are followed, and nothing is asked any more. */
async function settled(played: Played): Promise<void> {
  await until('the bells are heard', () => played.held.size >= 2);
  await until('it is quiet', async () => {
    const before = played.asked().length;
    await sleep(700);
    return played.asked().length === before;
  });
}

test('a bell names the service that is read, and no other is', async (t) => {
  const played = await Played.start(t, 20);
  const { states, errors } = follow(t, played, 20);
  await settled(played);
  const before = played.requests.length;
  played.set('s7', 9, 'critical');
  played.ring([check('s7', 9)]);
  await until('it is read', () => states.get('s7') === 'critical');
  await sleep(100);
  assert.deepEqual(played.asked(before).sort(), ['health/service/s7', 'health/state/critical']);
  assert.deepEqual(errors, []);
});

test('a check of a node is of every service on it', async (t) => {
  const played = await Played.start(t, 20);
  for (let i = 0; i < 5; i += 1) played.set(`s${i}`, 5, 'passing', 'other');
  const { answers } = follow(t, played, 20);
  await settled(played);
  answers.clear();
  for (let i = 0; i < 5; i += 1) played.set(`s${i}`, 9, 'passing', 'other');
  played.ring([{ ...check('', 9, 'other'), CheckID: 'node' }]);
  await until('all are read', () => answers.size === 5);
  assert.deepEqual([...answers.keys()].sort(), ['s0', 's1', 's2', 's3', 's4']);
});

test('whoever answers behind the one that rang is asked once more', async (t) => {
  const played = await Played.start(t, 20);
  const { states } = follow(t, played, 20);
  await settled(played);
  played.ring([check('s7', 9)]);
  await sleep(300);
  played.set('s7', 9, 'critical');
  await until('it is read again', () => states.get('s7') === 'critical');
});

test('what was read between two answers of a bell, and neither shows, is read again', async (t) => {
  const played = await Played.start(t, 20);
  const { states } = follow(t, played, 20);
  await settled(played);
  // A sweep finds it critical; the bell hears of it when it is over.
  played.set('s7', 8, 'critical');
  played.registrations += 1;
  await until('it is read', () => states.get('s7') === 'critical');
  await settled(played);
  played.set('s7', 9, 'passing');
  played.ring([]);
  await until('it is read again', () => states.get('s7') === 'passing');
});

test('when something is registered otherwise, each index is looked at and what is other is read', async (t) => {
  const played = await Played.start(t, 20);
  const { answers } = follow(t, played, 20);
  await settled(played);
  answers.clear();
  const before = played.requests.length;
  played.set('s3', 9);
  played.registrations += 1;
  await until('it is read', () => answers.has('s3'));
  await settled(played);
  assert.deepEqual([...answers], [['s3', 1]]);
  const looks = new Set(played.asked(before).filter((path) => path.endsWith('?tag')));
  assert.equal(looks.size, 20);
});

test('each has its turn, however often something is registered otherwise', async (t) => {
  const played = await Played.start(t, 100);
  const { answers } = follow(t, played, 100);
  played.other = (url) => {
    if (url.pathname === '/v1/catalog/services') played.registrations += 1;
    return false;
  };
  await until('all are read', () => answers.size === 100);
  await sleep(1_500);
  const before = played.requests.length;
  await until(
    'each is looked at',
    () => {
      const looks = played.asked(before).filter((path) => path.endsWith('?tag'));
      return new Set(looks).size === 100;
    },
    5,
  );
});

test('an index that goes back is believed of a consistent read alone', async (t) => {
  const played = await Played.start(t, 20);
  const { states } = follow(t, played, 20);
  await settled(played);
  const isPast = (url: URL) => url.pathname.endsWith('/s3') && !url.searchParams.has('consistent');
  played.other = (url, response) => {
    if (!isPast(url)) return false;
    const entry = { Node: { Node: 'n' }, Checks: [{ Node: 'n', CheckID: 's3', Status: 'past' }] };
    const headers = { 'content-type': 'application/json', 'x-consul-index': '2' };
    response
      .writeHead(200, headers)
      .end(JSON.stringify(url.searchParams.has('tag') ? [] : [entry]));
    return true;
  };
  const before = played.requests.length;
  played.registrations += 1;
  const consistent = () => {
    const asked = played.requests.slice(before).filter(({ pathname }) => pathname.endsWith('/s3'));
    return asked.some(({ searchParams }) => searchParams.has('consistent'));
  };
  await until('it is asked consistently', consistent);
  await sleep(200);
  assert.equal(states.get('s3'), 'passing');
});

test('a bell that is denied is said, and all are looked at until it is heard', async (t) => {
  const played = await Played.start(t, 20);
  played.other = (url, response) => {
    if (url.pathname !== '/v1/health/state/critical') return false;
    response.writeHead(403).end('not here');
    return true;
  };
  const { said, states, errors } = follow(t, played, 20);
  const why = `/health/state/critical: Consul at ${played.address}: 403 not here`;
  const line = `ERROR watches: 20 services by doorbells: ${why}: so all are looked at in turn`;
  await until('it is said', () => said.some((one) => one.startsWith(line)));
  await sleep(200);
  played.set('s7', 9, 'critical');
  await until('it is found', () => states.get('s7') === 'critical');
  assert.deepEqual(errors, []);
  played.other = () => false;
  await until('it is heard', () => said.at(-1)?.includes('a check is heard at once') === true);
});

test('a Consul that is away is told to every service, and what it has then is read', async (t) => {
  const played = await Played.start(t, 20);
  const { states, errors } = follow(t, played, 20);
  await settled(played);
  played.other = (_, response) => {
    response.destroy();
    return true;
  };
  for (const response of played.held.keys()) response.destroy();
  await until('each has failed', () => new Set(errors).size === 20);
  for (const i of [3, 7]) played.set(`s${i}`, 9, 'critical');
  played.other = () => false;
  await until(
    'each is read',
    () => states.get('s3') === 'critical' && states.get('s7') === 'critical',
  );
});

test('with the fewest connections all are looked at in turn', async (t) => {
  const played = await Played.start(t, 5);
  const { states } = follow(t, played, 5, 3);
  await until('all are read', () => states.size === 5);
  played.set('s4', 9, 'critical');
  await until('it is found', () => states.get('s4') === 'critical');
});

test('a crowd begins with one too many, and is over when there are clearly fewer, not soon', (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  let time = 0;
  t.mock.method(performance, 'now', () => time);
  let changes = 0;
  const crowd = createCrowd(8, 1_000, () => {
    changes += 1;
  });
  crowd.count(8);
  assert.deepEqual([crowd.isCrowded, changes], [false, 0]);
  crowd.count(9);
  assert.deepEqual([crowd.isCrowded, changes], [true, 1]);
  crowd.count(7);
  time = 2_000;
  crowd.count(7);
  assert.equal(crowd.isCrowded, true);
  crowd.count(6);
  assert.deepEqual([crowd.isCrowded, changes], [false, 2]);
  crowd.count(9);
  crowd.count(1);
  assert.equal(crowd.isCrowded, true);
  time = 3_000;
  t.mock.timers.tick(1_000);
  assert.deepEqual([crowd.isCrowded, changes], [false, 4]);
});

test('of two lists the checks that have come, are written again, or have gone are others', () => {
  const list = (...all: object[]) => listedChecks([null, ...all]);
  const before = list(check('a', 1), check('b', 2), check('c', 3));
  const after = list(check('b', 2), check('c', 4), check('d', 5));
  const names = otherChecks(before, after).map(({ service }) => service);
  assert.deepEqual(names.sort(), ['a', 'c', 'd']);
});

test('what is malformed in an answer is passed over', () => {
  const odd: unknown[] = [null, 7, 'x', { toString: 1 }, [], {}];
  const checks = odd.map((one) => ({ Node: one, CheckID: one, ServiceName: one, Status: one }));
  listedChecks([...odd, ...checks]);
  const nodes = odd.map((one) => ({ Node: one, Checks: one }));
  shownBy([...odd, ...nodes, { Node: { Node: { toString: 1 } }, Checks: [...odd, ...checks] }]);
});

test('a place that is as configured is carried, said or not; another has queries of its own', async (t) => {
  const played = await Played.start(t, 20);
  const places: Record<string, Place> = {
    s0: { datacenter: 'dc1', namespace: undefined },
    s1: { datacenter: 'dc2' },
    s2: { peer: 'cloud' },
  };
  const nowhere = { datacenter: undefined, namespace: undefined };
  const { said, answers } = follow(t, played, 20, 12, (service) => places[service] ?? nowhere);
  await until('all are answered', () => answers.size === 20);
  await until('it is a crowd', () => said.some((line) => line.includes('by doorbells')));
  const own = () => {
    const held = [...played.requests].filter(({ pathname, searchParams }) => {
      return pathname.startsWith('/v1/health/service/') && searchParams.has('index');
    });
    return held.filter(({ searchParams }) => {
      return searchParams.get('dc') !== 'dc1' || searchParams.has('peer');
    });
  };
  await until('s1 and s2 hold queries of their own', () => own().length === 2);
  assert.deepEqual(
    own()
      .map(({ pathname }) => pathname.split('/').at(-1))
      .sort(),
    ['s1', 's2'],
  );
  await until('the bell is held', () => {
    return played.requests.some(({ pathname, searchParams }) => {
      return pathname.endsWith('/state/critical') && searchParams.has('index');
    });
  });
  for (const name of ['s0', 's5']) played.set(name, 6, 'critical');
  const from = played.requests.length;
  played.ring([check('s0', 6), check('s5', 6)]);
  await until('those that rang are read', () => {
    return ['s0', 's5'].every((name) => played.asked(from).includes(`health/service/${name}`));
  });
});
