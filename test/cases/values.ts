import { readFileSync } from 'node:fs';

/** One line of test/cases/values.txt at one of its places, as a document. */
export interface Case {
  verdict: 'good' | 'bad' | 'unread';
  /** Where the value lies: each step of its JSON pointer. */
  at: string[];
  /** The document, as text: some have no value that `JSON.stringify` could write. */
  text: string;
  /** Of a bad one, each step of the JSON pointer to what is wrong. */
  wrong: string[];
}

/** What test/cases/values.txt holds. The same reader stands in test/lua/values_spec.lua. */
export function readCases(): Case[] {
  const cases: Case[] = [];
  let places: string[][] = [];
  for (const line of readFileSync('test/cases/values.txt', 'utf8').split('\n')) {
    if (line === '' || line.startsWith('#')) continue;
    const [, word = '', rest = ''] = /^(\w+) ?(.*)$/.exec(line) ?? [];
    if (word === 'at') {
      places = rest.split(' ').map(steps);
      continue;
    }
    const [, below = '', short = ''] = /^(\/\S* )?(.*)$/.exec(rest) ?? [];
    const value = short.replace(/<(.+?)\*(\d+)>/, (_, part, times) => part.repeat(Number(times)));
    for (const place of places) {
      const isKey = place.at(-1) === '*';
      const at = isKey ? [...place.slice(0, -1), JSON.parse(value)] : place;
      const keys = isKey ? [...quoted(at.slice(0, -1)), value] : quoted(at);
      const text = keys.reduceRight((inner, key) => `{${key}:${inner}}`, isKey ? '{}' : value);
      cases.push({
        verdict: word as Case['verdict'],
        at,
        text,
        wrong: [...at, ...steps(below.trimEnd())],
      });
    }
  }
  return cases;
}

function quoted(keys: string[]): string[] {
  return keys.map((key) => JSON.stringify(key));
}

/** The steps of a JSON pointer (RFC 6901). */
export function steps(pointer: string): string[] {
  const parts = pointer.split('/').slice(1);
  return parts.map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'));
}
