import { loadSnapshot } from '../snapshot/file.ts';
import type { Snapshot } from '../snapshot/format.ts';
import type { Output } from './output.ts';

/** Prints the document of a snapshot. @throws Error when it is damaged or missing */
export function showSnapshot(path: string, output: Output): number {
  output.out(JSON.stringify(read(path).document, null, 2));
  return 0;
}

/** Says whether a snapshot is whole. @throws Error when it is damaged or missing */
export function verifySnapshot(path: string, output: Output): number {
  const { savedAt, document } = read(path);
  const upstreams = Object.values(document.upstreams);
  const peers = upstreams.reduce((sum, upstream) => sum + Object.keys(upstream.peers).length, 0);
  const counts = `${upstreams.length} upstreams, ${peers} peers`;
  output.out(`${path}: whole, of ${savedAt.toISOString()}, ${counts}`);
  return 0;
}

function read(path: string): Snapshot {
  let snapshot: Snapshot | undefined;
  try {
    snapshot = loadSnapshot(path);
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`);
  }
  if (snapshot === undefined) throw new Error(`${path}: no such file`);
  return snapshot;
}
