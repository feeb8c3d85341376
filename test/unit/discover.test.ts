// Proves which upstreams rules make of a catalogue, and that no name of a service
// that somebody registers can hurt.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseConfig } from '../../agent/config/file.ts';
import { resolveConfig } from '../../agent/config/resolve.ts';
import { createPattern } from '../../agent/source/discover/pattern.ts';
import {
  couldHaveFound,
  createFinder,
  findUpstreams,
  upstreamOf,
} from '../../agent/source/discover/rules.ts';
import type { HealthConfig } from '../../agent/source/health/config.ts';

function rules(...discover: object[]) {
  const file = parseConfig(JSON.stringify({ discover }), 'x');
  return resolveConfig({}, {}, file).discover.map(createFinder);
}

function catalogue(services: Record<string, string[]>) {
  return new Map(Object.entries(services).map(([name, tags]) => [name, new Set(tags)]));
}

function found(finders: ReturnType<typeof rules>, services: Record<string, string[]>, taken = '') {
  const { matches, notes } = findUpstreams(finders, catalogue(services), new Set([taken]));
  return { names: [...matches].map(([name, { service }]) => `${name}=${service}`), notes };
}

test('all that a rule says must match', () => {
  const services = { 'web-a': ['x', 'on'], 'web-b': ['x'], api: ['on'], consul: [] };
  assert.deepEqual(found(rules({ tag: 'on' }), services).names, ['api=api', 'web-a=web-a']);
  assert.deepEqual(found(rules({ tag: 'on', service: 'web-*' }), services).names, ['web-a=web-a']);
  assert.deepEqual(found(rules({ tag: 'on', tags: ['x'] }), services).names, ['web-a=web-a']);
  assert.deepEqual(found(rules({ service: '/^web-[b-z]$/' }), services).names, ['web-b=web-b']);
  assert.equal(found(rules({ service: '*' }), services).names.length, 4);
  // A filter is for the query of each service to answer.
  assert.equal(found(rules({ filter: 'Service.Port == 1' }), services).names.length, 4);
});

test('a glob is the whole name, and a star any text', () => {
  const cases: [string, string, boolean][] = [
    ['web', 'web', true],
    ['web', 'web-a', false],
    ['web-*', 'web-', true],
    ['*-web', 'a-web', true],
    ['*-web', 'a-web-b', false],
    ['a*b*c', 'a-b-c', true],
    ['a*b*c', 'acb', false],
    ['a*ab', 'ab', false],
    ['a.c', 'abc', false],
    ['*', 'anything', true],
  ];
  for (const [pattern, name, fits] of cases) {
    assert.equal(createPattern(pattern).select([name]).length === 1, fits, `${pattern} ${name}`);
  }
});

test('the name of the upstream is made of that of the service', () => {
  const finders = rules({ service: 'web', name: 'x-{service}.y' });
  assert.deepEqual(found(finders, { web: [] }).names, ['x-web.y=web']);
  assert.equal(couldHaveFound(finders, 'x-web.y')?.service, 'web');
  for (const name of ['web', 'x-web', 'x-api.y', 'x-.y', 'x.y']) {
    assert.equal(couldHaveFound(finders, name), undefined, name);
  }
  // What a replacement pattern would mean is text.
  assert.deepEqual(found(rules({ service: '*' }), { '$&': [] }).names, []);
});

test('of two rules that give one name the first wins, and it is said', () => {
  const finders = rules({ service: 'web-api' }, { service: 'api', name: 'web-{service}' });
  const both = found(finders, { api: [], 'web-api': [] });
  assert.deepEqual(both.names, ['web-api=web-api']);
  assert.deepEqual(both.notes, ['found by several rules, of which the first wins: web-api']);
  assert.deepEqual(found(finders, { api: [] }), { names: ['web-api=api'], notes: [] });
});

test('an entry of upstreams has its name before any rule', () => {
  assert.deepEqual(found(rules({ tag: 'on' }), { web: ['on'], api: ['on'] }, 'web'), {
    names: ['api=api'],
    notes: [],
  });
});

test('an upstream asks for the instances that carry the tags', () => {
  const [finder] = rules({ tag: 'on', filter: 'Service.Port == 1', balance: 'random' });
  assert(finder !== undefined);
  const { source, settings, isTransient, origin } = upstreamOf({ ...finder, service: 'web' });
  const { service, filter, selection } = source as HealthConfig;
  assert.deepEqual([service, filter, selection.tags], ['web', 'Service.Port == 1', ['on']]);
  assert.deepEqual(settings, { balance: 'random' });
  assert.equal(isTransient, true);
  assert.equal(origin, 'discover: tag on, filter Service.Port == 1');
});

test('names that no upstream can have are left out, and said in bounds', () => {
  const odd = ['..', 'a/b', 'a b', '\u0007'.repeat(900), 'x'.repeat(129), 'é', ''];
  const services = Object.fromEntries([...odd, 'web', '__proto__', 'a'].map((name) => [name, []]));
  Object.defineProperty(services, '__proto__', { value: [], enumerable: true });
  const { names, notes } = found(rules({ service: '*' }), services);
  assert.deepEqual(names, ['__proto__=__proto__', 'a=a', 'web=web']);
  assert.match(notes.join(), /^left out, since no upstream can have such a name: .* and 2 more$/);
  assert(notes.join().length < 700 && !notes.join().includes('\u0007'));
});

test('a name on which a careless expression runs for ever costs its own upstream alone', () => {
  const bad = `${'a'.repeat(60)}-`;
  const finders = rules({ service: '/^(a+)+$/' });
  const services = { aaa: [], [bad]: [], b: [], aa: [] };
  const { names, notes } = found(finders, services);
  assert.deepEqual(names, ['aa=aa', 'aaa=aaa']);
  assert.deepEqual(notes, [`left out, since the regular expression takes too long: ${bad}`]);
  // It is not tried again.
  assert.deepEqual([...(finders[0]?.pattern.slow ?? [])], [bad]);
});
