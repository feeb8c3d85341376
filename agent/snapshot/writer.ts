import type { Document } from '../state/document.ts';
import { pauseAfter } from '../util/coded-error.ts';
import { saveSnapshot } from './file.ts';

export interface SnapshotWriter {
  /** Writes the latest state soon; calls until then are one write. */
  changed(): void;
  /** Ends after one more try to write what is still unwritten. */
  stop(): Promise<void>;
  /** The mark of the file as it was last written; undefined while another write is to come. */
  readonly mark: string | undefined;
}

/** Hears of each write. */
export interface WriteReport {
  /** @param failures in a row before this one */
  written(failures: number): void;
  /** It is tried again. @param failures in a row, with this one */
  failed(error: Error, failures: number): void;
}

/** Long enough to stay out of the way of the push of the same change, in ms. */
const quiet = 100;

/** Between two writes while changes keep coming, in ms: each waits for the disk. */
const spacing = 1000;

/** A write that takes long leaves at least so many times its own time to other work. */
const share = 20;

/** @param document gives the state to be saved */
export function createSnapshotWriter(
  path: string,
  document: () => Document,
  report: WriteReport,
): SnapshotWriter {
  let timer: NodeJS.Timeout | undefined;
  let dirty = false;
  let stopped = false;
  let failures = 0;
  /** How long the last write took, in ms. */
  let took = 0;
  /** When the last write began, in ms. */
  let began = Number.NEGATIVE_INFINITY;
  let mark: string | undefined;
  let writing: Promise<void> = Promise.resolve();

  async function write(): Promise<void> {
    if (!dirty) return;
    dirty = false;
    began = performance.now();
    try {
      mark = undefined;
      mark = await saveSnapshot(path, { savedAt: new Date(), document: document() });
    } catch (error) {
      dirty = true;
      failures += 1;
      if (!stopped) schedule(quiet + pauseAfter(error, failures));
      report.failed(error as Error, failures);
      return;
    }
    took = performance.now() - began;
    const before = failures;
    failures = 0;
    report.written(before);
  }

  function schedule(ms: number): void {
    clearTimeout(timer);
    timer = setTimeout(flush, ms);
  }

  // One write at a time, so that an older state never replaces a newer one.
  function flush(): Promise<void> {
    clearTimeout(timer);
    timer = undefined;
    writing = writing.then(write);
    return writing;
  }

  return {
    get mark() {
      return dirty ? undefined : mark;
    },
    changed() {
      dirty = true;
      if (timer !== undefined) return;
      const rest = began + spacing - performance.now();
      schedule(Math.max(quiet, share * took, rest));
    },
    stop() {
      stopped = true;
      return flush();
    },
  };
}
