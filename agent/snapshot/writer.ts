import type { Document } from '../table/document.ts';
import { saveSnapshot } from './file.ts';

export interface SnapshotWriter {
  /** Writes the latest state soon; calls until then are one write. */
  changed(): void;
  /** Ends after writing what is still unwritten. */
  stop(): Promise<void>;
}

/** Long enough to stay out of the way of the push of the same change. */
const quiet = 100;

/**
 * @param document gives the state to be saved
 * @param report hears of each write, with the error when it failed
 */
export function createSnapshotWriter(
  path: string,
  document: () => Document,
  report: (error?: Error) => void,
): SnapshotWriter {
  let timer: NodeJS.Timeout | undefined;
  let dirty = false;
  let writing: Promise<void> = Promise.resolve();

  async function write(): Promise<void> {
    if (!dirty) return;
    dirty = false;
    try {
      await saveSnapshot(path, { savedAt: new Date(), document: document() });
      report();
    } catch (error) {
      report(error as Error);
    }
  }

  // One write at a time: two would share the temporary file.
  function flush(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    writing = writing.then(write);
    return writing;
  }

  return {
    changed() {
      dirty = true;
      timer ??= setTimeout(flush, quiet);
    },
    stop: flush,
  };
}
