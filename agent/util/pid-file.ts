import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { ConfigError } from '../config/error.ts';

/**
 * Writes our process id into a file, over one that a killed agent has left.
 *
 * @returns a function that removes it, unless another agent has written its own by then
 * @throws ConfigError when it cannot be written
 */
export function writePidFile(path: string): () => void {
  const text = `${process.pid}\n`;
  try {
    writeFileSync(path, text, { mode: 0o644 });
  } catch (error) {
    throw new ConfigError(`pid_file: ${(error as Error).message}`, 'config/unreadable', error);
  }
  return () => {
    try {
      if (readFileSync(path, 'utf8') === text) rmSync(path);
    } catch {
      // It, or its folder, is gone or is not ours any more.
    }
  };
}
