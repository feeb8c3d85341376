/** What a page of the documentation tells its reader to do, in order. */
export type Step =
  | { kind: 'file'; path: string; text: string }
  /** What it prints, both streams, as it stands on the page. */
  | { kind: 'command'; command: string; prints: string };

/**
 * Reads the code blocks of a page. One with a path behind its language is a file;
 * `console` holds commands behind `$ `, each with what it prints.
 *
 * @throws Error naming a block that is neither, which nobody could follow
 */
export function stepsOf(markdown: string): Step[] {
  const blocks = markdown.matchAll(/^```(\S+)(?: (\S+))?\n([\s\S]*?)^```$/gm);
  return [...blocks].flatMap(([, language = '', path, text = '']) => {
    if (path !== undefined) return [{ kind: 'file', path, text }];
    if (language !== 'console') throw new Error(`a block of ${language} without a path`);
    return commandsOf(text);
  });
}

function commandsOf(text: string): Step[] {
  const [before, ...rest] = `\n${text}`.split('\n$ ');
  if (before !== '') throw new Error(`what prints this? ${before}`);
  return rest.map((part) => {
    const [command = '', ...prints] = part.replace(/\n$/, '').split('\n');
    return { kind: 'command', command, prints: prints.map((line) => `${line}\n`).join('') };
  });
}
