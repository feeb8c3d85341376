import { loadSnapshot } from '../snapshot/file.ts';
import type { ReadSnapshot } from '../snapshot/format.ts';
import type { Output } from './output.ts';

/**
 * Prints the document of a snapshot, without what nginx would leave out of it.
 *
 * @throws Error when it is damaged or missing
 */
export function showSnapshot(path: string, output: Output): number {
  const { document, leftOut } = read(path);
  sayLeftOut(path, leftOut, output);
  output.out(JSON.stringify(document, null, 2));
  return 0;
}

/** Says whether a snapshot is whole and good. @throws Error when it is damaged or missing */
export function verifySnapshot(path: string, output: Output): number {
  const { savedAt, document, leftOut } = read(path);
  sayLeftOut(path, leftOut, output);
  const upstreams = Object.values(document.upstreams);
  const peers = upstreams.reduce((sum, upstream) => sum + Object.keys(upstream.peers).length, 0);
  const counts = `${upstreams.length} upstreams, ${peers} peers`;
  const what = leftOut.length === 0 ? 'whole' : 'usable in part';
  output.out(`${path}: ${what}, of ${savedAt.toISOString()}, ${counts}`);
  return leftOut.length === 0 ? 0 : 1;
}

function sayLeftOut(path: string, leftOut: string[], output: Output): void {
  for (const line of leftOut) output.err(`reloadless: ${path}: left out: ${line}`);
}

function read(path: string): ReadSnapshot {
  let snapshot: ReadSnapshot | undefined;
  try {
    snapshot = loadSnapshot(path);
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`, { cause: error });
  }
  if (snapshot === undefined) throw new Error(`${path}: no such file`);
  return snapshot;
}
