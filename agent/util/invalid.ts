import type { z } from 'zod';
import { brief, show } from './text.ts';

/** One thing that a schema refused. */
export interface Fault {
  /** Where it is. */
  path: string[];
  /** Such as `upstreams.web.max_fails: 70000 is not an integer from 0 to 65535`. */
  text: string;
  /** It is a key that the schema does not know. */
  isUnknown: boolean;
}

/**
 * One line for the first thing that a schema refused.
 *
 * @param input what was parsed, to show the value
 */
export function whyInvalid(error: z.ZodError, input: unknown): string {
  return allInvalid(error, input)[0]?.text ?? 'not valid';
}

/** All that a schema refused. @param input what was parsed, to show the values */
export function allInvalid(error: z.ZodError, input: unknown): Fault[] {
  return error.issues.flatMap((issue): Fault[] => {
    const path = issue.path.map(String);
    if (issue.code !== 'unrecognized_keys') {
      return [{ path, text: describe(issue, path, input), isUnknown: false }];
    }
    return issue.keys.map((key) => {
      const at = [...path, key];
      return { path: at, text: `${dotted(at)}: not a key that can be set here`, isUnknown: true };
    });
  });
}

function dotted(path: string[]): string {
  return path.map((key) => brief(key)).join('.');
}

function describe(issue: z.core.$ZodIssue, path: string[], input: unknown): string {
  const where = path.length === 0 ? '' : `${dotted(path)}: `;
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
