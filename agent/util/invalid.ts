import type { z } from 'zod';
import { brief, show } from './text.ts';

/**
 * One line for the first thing that a schema refused.
 *
 * @param input what was parsed, to show the value
 * @returns such as `upstreams.web.max_fails: 70000 is not an integer from 0 to 65535`
 */
export function whyInvalid(error: z.ZodError, input: unknown): string {
  const issue = error.issues[0];
  if (issue === undefined) return 'not valid';
  const path = issue.path.map(String);
  const shown = path.map((key) => brief(key));
  if (issue.code === 'unrecognized_keys') {
    const keys = issue.keys.slice(0, 8).map((key) => [...shown, brief(key)].join('.'));
    return `${keys.join(', ')}: not a key that can be set here`;
  }
  const where = path.length === 0 ? '' : `${shown.join('.')}: `;
  if (issue.code === 'invalid_key') {
    return `${where}the key is not ${issue.issues[0]?.message ?? 'valid'}`;
  }
  const value = valueAt(input, path);
  const expectation = issue.code === 'invalid_type' ? article(issue.expected) : issue.message;
  if (value === undefined) return `${where}missing, expected ${expectation}`;
  return `${where}${show(value)} is not ${expectation}`;
}

function valueAt(input: unknown, path: string[]): unknown {
  let value = input;
  for (const key of path) {
    if (typeof value !== 'object' || value === null) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

function article(type: string): string {
  if (type === 'record' || type === 'object') return 'a mapping of names to values';
  if (type === 'array') return 'a list';
  return `a ${type}`;
}
