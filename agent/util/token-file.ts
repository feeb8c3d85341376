import { readFileSync } from 'node:fs';
import { ConfigError } from '../config/error.ts';

/**
 * Reads a token from its file.
 *
 * @returns without the white space around it
 * @throws ConfigError naming the file when it cannot be read or is empty
 */
export function readToken(path: string): string {
  let token: string;
  try {
    token = readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw new ConfigError(
      `token file ${path}: ${(error as Error).message}`,
      'config/unreadable',
      error,
    );
  }
  if (token === '') throw new ConfigError(`token file ${path} is empty`, 'config/unreadable');
  return token;
}
