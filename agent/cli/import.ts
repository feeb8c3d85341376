import { ImportError } from '../import/lexer.ts';
import { printImported } from '../import/print.ts';
import { type Imported, readFiles } from '../import/read.ts';
import type { Output } from './output.ts';

/**
 * Reads configurations of nginx and prints what replaces them; what is not
 * carried over is said on stderr.
 *
 * @returns the exit code: 1 when a file cannot be read, 3 when something is left out
 */
export function importFiles(files: string[], output: Output): number {
  let imported: Imported;
  try {
    imported = readFiles(files);
  } catch (error) {
    if (!(error instanceof ImportError)) throw error;
    output.err(`reloadless: ${error.message}`);
    return 1;
  }
  const { upstreams, rules, lost } = imported;
  for (const { file, line, what, why } of lost) output.err(`${file}:${line}: ${what}: ${why}`);
  if (upstreams.length + rules.length > 0)
    for (const line of printImported(imported)) output.out(line);
  return lost.length === 0 ? 0 : 3;
}
