import { readFileSync } from 'node:fs';
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, parseDocument } from 'yaml';
import { z } from 'zod';
import { allInvalid, type Fault } from '../util/invalid.ts';
import { ConfigError } from './error.ts';
import { type FileConfig, fileSchema } from './file-schema.ts';
import { nearest } from './near.ts';

/** So many faults are named; more have the same cause. */
const mostFaults = 20;

/**
 * Reads and checks a configuration file.
 *
 * @throws ConfigError naming each fault: file and line, the key, its value and what was expected
 */
export function readConfigFile(path: string): FileConfig {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new ConfigError(`${path}: ${(error as Error).message}`, 'config/unreadable', error);
  }
  return parseConfig(text, path);
}

/**
 * @param name of the file, for messages
 * @throws ConfigError
 */
export function parseConfig(text: string, name: string): FileConfig {
  const lines = new LineCounter();
  const yaml = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => `${name}:${lines.linePos(offset).line}`;
  if (yaml.errors.length > 0) {
    throw new ConfigError(few(yaml.errors.map(({ pos, message }) => `${at(pos[0])}: ${message}`)));
  }
  let value: unknown;
  try {
    // Aliases that name nothing, or that would grow out of all bounds.
    value = yaml.toJS() ?? {};
  } catch (error) {
    throw new ConfigError(`${name}: ${(error as Error).message}`);
  }
  if (holdsItself(value)) throw new ConfigError(`${name}: an alias stands in what it names`);
  const result = fileSchema.safeParse(value);
  if (result.success) return result.data;
  const faults = allInvalid(result.error, value)
    .map((fault) => ({ ...fault, offset: offsetOf(fault.path, yaml) }))
    .sort((a, b) => a.offset - b.offset);
  throw new ConfigError(
    few(faults.map((fault) => `${at(fault.offset)}: ${fault.text}${hint(fault)}`)),
  );
}

function few(faults: string[]): string[] {
  if (faults.length <= mostFaults) return faults;
  return [...faults.slice(0, mostFaults), `and ${faults.length - mostFaults} more`];
}

/** Where a value stands in the text, or the nearest thing around it that is there. */
function offsetOf(path: string[], yaml: Document): number {
  let offset = yaml.contents?.range?.[0] ?? 0;
  let node: unknown = yaml.contents;
  for (const step of path) {
    if (isAlias(node)) node = node.resolve(yaml);
    if (isMap(node)) {
      const pair = node.items.find(({ key }) => isScalar(key) && String(key.value) === step);
      if (isScalar(pair?.key)) offset = pair.key.range?.[0] ?? offset;
      node = pair?.value;
    } else if (isSeq(node)) {
      node = node.items[Number(step)];
      offset = (node as { range?: number[] } | undefined)?.range?.[0] ?? offset;
    }
  }
  return offset;
}

/** Names the key that was meant by one that is misspelt. */
function hint({ path, isUnknown }: Fault): string {
  if (!isUnknown) return '';
  const near = nearest(path.at(-1) ?? '', keysAt(path.slice(0, -1)));
  return near === undefined ? '' : `; did you mean ${near}?`;
}

interface Shape {
  properties?: Record<string, Shape>;
  additionalProperties?: Shape;
  items?: Shape;
}

/** The keys that the file may have at a place. */
function keysAt(path: string[]): string[] {
  let shape = z.toJSONSchema(fileSchema, { unrepresentable: 'any' }) as Shape | undefined;
  for (const step of path) {
    shape = shape?.properties?.[step] ?? shape?.additionalProperties ?? shape?.items;
  }
  return Object.keys(shape?.properties ?? {});
}

function holdsItself(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return false;
  } catch {
    return true;
  }
}
