import { readFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { decodeSnapshot, encodeSnapshot, type Snapshot } from './format.ts';

/**
 * @returns undefined when there is no file
 * @throws Error saying how the file is damaged, or why it cannot be read
 */
export function loadSnapshot(path: string): Snapshot | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  return decodeSnapshot(bytes);
}

/**
 * Writes a snapshot so that a reader, and a machine that loses its power,
 * finds the old one or the new one. Everybody may read it: nginx does.
 */
export async function saveSnapshot(path: string, snapshot: Snapshot): Promise<void> {
  const temporary = `${path}.tmp`;
  const file = await open(temporary, 'w');
  try {
    await file.chmod(0o644);
    await file.writeFile(encodeSnapshot(snapshot));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
