import { randomBytes } from 'node:crypto';
import { type BigIntStats, closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs';
import { lstat, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { SnapshotError } from './error.ts';
import {
  decodeSnapshot,
  encodeSnapshot,
  largest,
  type ReadSnapshot,
  type Snapshot,
} from './format.ts';

/** A temporary file of this age, in ms, is one that a killed writer has left. */
const stale = 3_600_000;

/**
 * @returns undefined when there is no file
 * @throws SnapshotError when it cannot be read or is no regular file
 */
export function readSnapshotFile(path: string): Buffer | undefined {
  let fd: number;
  try {
    // Opening a FIFO would wait for somebody to write into it.
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw asSnapshotError('snapshot/unreadable', error);
  }
  try {
    const about = fstatSync(fd);
    if (!about.isFile()) throw unreadable('it is not a regular file');
    if (about.size > largest)
      throw unreadable(`it has ${about.size} bytes, the most is ${largest}`);
    return readFileSync(fd);
  } catch (error) {
    throw asSnapshotError('snapshot/unreadable', error);
  } finally {
    closeSync(fd);
  }
}

function unreadable(message: string): SnapshotError {
  return new SnapshotError('snapshot/unreadable', message);
}

/** Only what the system says is about the file. */
function asSnapshotError(code: SnapshotError['code'], error: unknown): unknown {
  const { syscall, message } = error as NodeJS.ErrnoException;
  return syscall === undefined ? error : new SnapshotError(code, message, error);
}

/**
 * @returns undefined when there is no file
 * @throws CodedError saying how the file is damaged, or why it cannot be read
 */
export function loadSnapshot(path: string): ReadSnapshot | undefined {
  const bytes = readSnapshotFile(path);
  return bytes && decodeSnapshot(bytes);
}

/**
 * Writes a snapshot. Its group may read it: an nginx whose master is not root.
 *
 * @returns its mark, as `markOf` has it
 * @throws SnapshotError
 */
export async function saveSnapshot(path: string, snapshot: Snapshot): Promise<string> {
  return replaceFile(path, await encodeSnapshot(snapshot));
}

/** @returns what a file has that no other write of it has; undefined when it cannot be told */
export async function markOf(path: string): Promise<string | undefined> {
  const about = await stat(path, { bigint: true }).catch(() => undefined);
  return about && mark(about);
}

function mark({ dev, ino, size, mtimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs].join(' ');
}

/**
 * Writes a file so that a reader, and a machine that loses its power, finds the
 * old one or the new one, however many write at once.
 *
 * @returns its mark, as `markOf` has it
 * @throws SnapshotError when it cannot be written
 */
export async function replaceFile(path: string, bytes: Buffer): Promise<string> {
  try {
    const written = await replace(path, bytes);
    await removeStale(path);
    return written;
  } catch (error) {
    throw asSnapshotError('snapshot/unwritten', error);
  }
}

async function replace(path: string, bytes: Buffer): Promise<string> {
  let written: string;
  const temporary = `${path}.${randomBytes(8).toString('hex')}.tmp`;
  try {
    // x: fails where anything is, a symbolic link too
    const file = await open(temporary, 'wx', 0o640);
    try {
      await file.chmod(0o640);
      // What root writes is for whoever has the folder: the agent must read it.
      if (process.getuid?.() === 0) {
        const { uid, gid } = await stat(dirname(path));
        await file.chown(uid, gid);
      }
      await file.writeFile(bytes);
      await file.sync();
      written = mark(await file.stat({ bigint: true }));
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  const folder = await open(dirname(path), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
  return written;
}

/** Writers that were killed have left their temporary files. */
async function removeStale(path: string): Promise<void> {
  const folder = dirname(path);
  const start = `${basename(path)}.`;
  for (const name of await readdir(folder)) {
    if (!name.startsWith(start) || !/^[0-9a-f]{16}\.tmp$/.test(name.slice(start.length))) continue;
    const leftover = join(folder, name);
    // Its own writer, or another one that clears up, may be faster.
    const about = await lstat(leftover).catch(() => undefined);
    if (about !== undefined && about.mtimeMs < Date.now() - stale)
      await rm(leftover, { force: true });
  }
}
