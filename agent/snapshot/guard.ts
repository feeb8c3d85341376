import type { Document } from '../state/document.ts';
import { isEqual, type Json } from '../state/merge-patch.ts';
import { loadSnapshot, markOf } from './file.ts';

export interface GuardOptions {
  path: string;
  /** Of the file as we wrote it last; undefined: it is not to be looked at. */
  mark: () => string | undefined;
  /** What the file should hold. */
  document: () => Document;
  /** The file holds something else. */
  lost: () => void;
}

/** Between two looks at the file, in ms; twice as long after each time that it was lost. */
const interval = 3_000;
const longest = 60_000;

/**
 * Looks now and then whether a snapshot still is what we wrote. Another agent of
 * the same configuration may write it too, and a little sooner or later than we:
 * so it is lost when it holds something else at two looks in a row.
 *
 * @returns a function that ends it
 */
export function guardSnapshot({ path, mark, document, lost }: GuardOptions): () => void {
  let pause = interval;
  let timer = setTimeout(look, pause);
  let stopped = false;
  /** The mark of a file that is not ours, at the last look. */
  let doubted: string | undefined;
  /** The mark of one that holds what ours does. */
  let accepted: string | undefined;

  async function isLost(): Promise<boolean> {
    const written = mark();
    if (written === undefined) return false;
    const found = (await markOf(path)) ?? 'none';
    if (found === written || found === accepted || written !== mark()) return false;
    if (found !== doubted) {
      doubted = found;
      return false;
    }
    doubted = undefined;
    if (!holds(path, document())) return true;
    accepted = found;
    return false;
  }

  async function look(): Promise<void> {
    if ((await isLost()) && !stopped) {
      pause = Math.min(2 * pause, longest);
      lost();
    }
    if (!stopped) timer = setTimeout(look, pause);
  }

  return () => {
    stopped = true;
    clearTimeout(timer);
  };
}

function holds(path: string, document: Document): boolean {
  try {
    const found = loadSnapshot(path);
    return (
      found?.leftOut.length === 0 &&
      isEqual(found.document as object as Json, document as object as Json)
    );
  } catch {
    return false;
  }
}
