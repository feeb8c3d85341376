import { basename, extname } from 'node:path';
import type { Statement } from './statements.ts';

/**
 * Reads what dyups answers: to `/detail` the names of the upstreams, each with
 * its servers in the lines below, to `/list` names alone, to `/upstream/NAME`
 * servers alone.
 *
 * @returns undefined when the text is anything else
 */
export function parseAnswer(text: string, file: string): Statement[] | undefined {
  const lines = text
    .split('\n')
    .map((line, i) => ({ words: line.trim().split(/\s+/), line: i + 1 }));
  const said = lines.filter(({ words }) => words[0] !== '');
  const isServer = (words: string[]) => words[0] === 'server' && words.length > 1;
  const isAnswer = said.every(
    ({ words }) => isServer(words) || (words.length === 1 && /^[^;{}#]+$/.test(words[0] ?? '')),
  );
  if (!isAnswer || said.length === 0 || /[;{}#]/.test(text)) return undefined;
  const statements: Statement[] = [];
  for (const { words, line } of said) {
    if (!isServer(words)) {
      statements.push({ file, line, name: 'upstream', args: words, block: [] });
      continue;
    }
    if (statements.length === 0) {
      const args = [basename(file, extname(file))];
      statements.push({ file, line, name: 'upstream', args, block: [] });
    }
    const [, ...args] = words.filter((word) => !isOff(word));
    statements.at(-1)?.block?.push({ file, line, name: 'server', args });
  }
  return statements;
}

/** It writes all parameters, those that are not set as 0, and says of a flag that it is 1. */
function isOff(word: string): boolean {
  return /^(backup|down|max_conns)=0$/.test(word);
}
