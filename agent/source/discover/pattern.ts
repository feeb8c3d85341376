import vm from 'node:vm';

/** Says which services are meant. */
export interface Pattern {
  /** @returns those of the names that it matches, in their order */
  select(names: string[]): string[];
  /** Names on which it took too long, so that it counts as not matching them. */
  readonly slow: ReadonlySet<string>;
}

/** For all names together, and at last for one, in ms. */
const most = 100;

/** @returns whether it is text, in which `*` is any text, or `/regex/` */
export function isPattern(text: string): boolean {
  const regex = regexOf(text);
  if (regex === undefined) return text !== '';
  try {
    return new RegExp(regex) !== undefined;
  } catch {
    return false;
  }
}

/**
 * A regular expression comes from the configuration, but the names come from
 * whoever may register a service, and a few of these can make a careless one
 * run for ever: so its time is bounded.
 */
export function createPattern(text: string): Pattern {
  const regex = regexOf(text);
  if (regex === undefined) {
    const pieces = text.split('*');
    return { select: (names) => names.filter((name) => fits(pieces, name)), slow: new Set() };
  }
  const slow = new Set<string>();
  const context = vm.createContext({ regex: new RegExp(regex), names: [] });
  const script = new vm.Script('names.filter((name) => regex.test(name))');

  function select(names: string[]): string[] {
    try {
      context.names = names;
      return [...script.runInContext(context, { timeout: most })];
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error;
    }
    if (names.length === 1) {
      for (const name of names) slow.add(name);
      return [];
    }
    const half = names.length >> 1;
    return [...select(names.slice(0, half)), ...select(names.slice(half))];
  }

  return { select: (names) => select(names.filter((name) => !slow.has(name))), slow };
}

function regexOf(text: string): string | undefined {
  return /^\/(.+)\/$/s.exec(text)?.[1];
}

/** @param pieces the text between the stars; each is looked for once, so it takes no long time */
function fits(pieces: readonly string[], name: string): boolean {
  const [first = '', ...rest] = pieces;
  const last = rest.pop();
  if (last === undefined) return name === first;
  if (!name.startsWith(first)) return false;
  let at = first.length;
  for (const piece of rest) {
    const found = name.indexOf(piece, at);
    if (found < 0) return false;
    at = found + piece.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}
