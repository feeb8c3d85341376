import { readFileSync } from 'node:fs';
import { parseDocument as parseYaml } from 'yaml';
import { whyInvalid } from '../util/invalid.ts';
import { ConfigError } from './error.ts';
import { type FileConfig, fileSchema } from './file-schema.ts';

/**
 * Reads and checks a configuration file.
 *
 * @throws ConfigError naming the file, the key, its value and what was expected
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
  const yaml = parseYaml(text);
  const fault = yaml.errors[0];
  if (fault !== undefined) throw new ConfigError(`${name}: ${fault.message.split('\n')[0]}`);
  let value: unknown;
  try {
    // Aliases that name nothing, or that would grow out of all bounds.
    value = yaml.toJS() ?? {};
  } catch (error) {
    throw new ConfigError(`${name}: ${(error as Error).message}`);
  }
  if (holdsItself(value)) throw new ConfigError(`${name}: an alias stands in what it names`);
  const result = fileSchema.safeParse(value);
  if (!result.success) throw new ConfigError(`${name}: ${whyInvalid(result.error, value)}`);
  return result.data;
}

function holdsItself(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return false;
  } catch {
    return true;
  }
}
