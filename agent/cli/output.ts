import { setTimeout as sleep } from 'node:timers/promises';
import type { FaultLog } from '../telemetry/bounded.ts';
import { stderr, stdout, type Writer } from '../telemetry/writer.ts';

/** Where a command that ends by itself writes its lines. */
export interface Output {
  out(line: string): void;
  err(line: string): void;
}

/** The first fault of stdout. */
let fault: NodeJS.ErrnoException | undefined;

export const terminal: Output = {
  out: (line) => writeOut(`${line}\n`),
  err: (line) => writeErr(`${line}\n`),
};

/** A log of which people at a terminal get what is amiss. */
export function outputLog({ err }: Output): FaultLog {
  const say = (_: unknown, line: string) => err(line);
  return { debug() {}, info() {}, warn: say, error: say };
}

export function writeOut(text: string): void {
  stdout.write(text, (error) => {
    fault ??= error ?? undefined;
  });
}

/** There is nobody left to hear that it cannot be written. */
export function writeErr(text: string): void {
  stderr.write(text, () => {});
}

/**
 * Waits until all is written, as long as its reader needs.
 *
 * @param most in ms, for a command that has to end
 * @returns why stdout could not be written; undefined also when its reader
 *   wanted no more, as `head` does
 */
export async function flush(most?: number): Promise<Error | undefined> {
  const all = Promise.all([written(stdout), written(stderr)]);
  const [late] = await (most === undefined ? all : Promise.race([all, sleep(most, [])]));
  fault ??= late;
  return fault?.code === 'EPIPE' ? undefined : fault;
}

function written(writer: Writer): Promise<Error | undefined> {
  return new Promise((resolve) => writer.write('', (error) => resolve(error ?? undefined)));
}

/** Columns of text, two spaces apart. */
export function columns(rows: string[][]): string[] {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  return rows.map((row) =>
    row
      .map((cell, i) => cell.padEnd(widths[i] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}
