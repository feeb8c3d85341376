/** A file that is no configuration of nginx, nor a template of one. */
export class ImportError extends Error {}

/** Where something stands. */
export interface Place {
  file: string;
  line: number;
}

/**
 * `action` is what a template has between its braces; `lua` a block of Lua,
 * whose text is of no matter here.
 */
export interface Token {
  kind: 'word' | ';' | '{' | '}' | 'action' | 'lua';
  text: string;
  line: number;
}

const escapes: Record<string, string> = {
  '"': '"',
  "'": "'",
  '\\': '\\',
  t: '\t',
  r: '\r',
  n: '\n',
};

/**
 * Cuts the text of a configuration into tokens by nginx' own rules
 * (ngx_conf_read_token), with the actions of a Go template between them.
 *
 * There are parsers of nginx configurations for Node.js. None of them keeps the
 * lines, which every message here needs, and they take what nginx refuses: a
 * block without its end, a Lua string with a brace in it.
 *
 * @param file its name, for messages
 * @throws ImportError naming file and line
 */
export function tokenize(text: string, file: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  let line = 1;
  /** Of the statement that is being read; undefined between two. */
  let first: string | undefined;

  function fail(why: string, where = line): never {
    throw new ImportError(`${file}:${where}: ${why}`);
  }

  function take(to: number): string {
    const taken = text.slice(at, to);
    line += taken.split('\n').length - 1;
    at = to;
    return taken;
  }

  function push(kind: Token['kind'], start: number, value = ''): void {
    tokens.push({ kind, text: value, line: start });
    first = kind === 'word' ? (first ?? value) : undefined;
  }

  /** `{{ … }}`, of which only the inside is given. */
  function takeAction(): string {
    const start = line;
    const comment = /^\{\{-?\s*\/\*[\s\S]*?\*\/\s*-?\}\}/.exec(text.slice(at))?.[0];
    if (comment !== undefined) {
      take(at + comment.length);
      return '';
    }
    const [whole] =
      /^\{\{(?:"(?:\\.|[^"\\\n])*"|`[^`]*`|(?!\}\})[^"`])*\}\}/.exec(text.slice(at)) ?? [];
    if (whole === undefined) return fail('{{ without its }}', start);
    return take(at + whole.length)
      .slice(2, -2)
      .replace(/^-\s/, '')
      .replace(/\s-$/, '')
      .trim();
  }

  /** A template's actions act in a comment, too. */
  function skipComment(): void {
    while (at < text.length && text[at] !== '\n') {
      if (!text.startsWith('{{', at)) at += 1;
      else {
        const start = line;
        const action = takeAction();
        if (/^(range|if|with|else|end)\b/.test(action)) push('action', start, action);
      }
    }
  }

  function takeQuoted(): string {
    const start = line;
    const [whole] = /^(["'])(?:\\[\s\S]|(?!\1)[^\\])*\1/.exec(text.slice(at)) ?? [];
    if (whole === undefined) return fail('a string without its end', start);
    take(at + whole.length);
    const next = text[at];
    if (next !== undefined && !/[\s;{)]/.test(next)) fail(`"${next}" right behind a string`);
    return unescaped(whole.slice(1, -1));
  }

  function takeWord(): string {
    let word = '';
    while (at < text.length) {
      const here = text.slice(at, at + 2);
      if (here === '{{') word += `{{${takeAction()}}}`;
      else if (here === '${') word += take(at + 2);
      else if (here[0] === '\\') word += take(at + 2);
      else if (/^[\s;{]/.test(here)) break;
      else word += take(at + 1);
    }
    return unescaped(word);
  }

  function takeLua(): void {
    const start = line;
    const piece =
      /^(?:--\[(=*)\[[\s\S]*?\]\1\]|--[^\n]*|\[(=*)\[[\s\S]*?\]\2\]|"(?:\\[\s\S]|[^"\\])*"|'(?:\\[\s\S]|[^'\\])*'|[^{}"'[-]+|[[-])/;
    let depth = 0;
    do {
      const [brace = ''] = /^[{}]/.exec(text.slice(at, at + 1)) ?? [];
      if (brace === '{') depth += 1;
      if (brace === '}') depth -= 1;
      const [other = brace] = brace === '' ? (piece.exec(text.slice(at)) ?? []) : [];
      if (other === '') fail('a block of Lua without its end', start);
      take(at + other.length);
    } while (depth > 0);
    push('lua', start);
  }

  while (at < text.length) {
    const here = text[at] ?? '';
    const start = line;
    if (/\s|\ufeff/.test(here)) take(at + 1);
    else if (here === '#') skipComment();
    else if (text.startsWith('{{', at) && first === undefined) {
      const action = takeAction();
      // A word that begins with one, such as `{{ $name }}_backend`, is no action.
      if (action !== '') push('action', start, action);
    } else if (here === '{' && first?.endsWith('_by_lua_block')) takeLua();
    else if (here === ';' || here === '}' || (here === '{' && text[at + 1] !== '{')) {
      take(at + 1);
      push(here, start);
    } else if (here === '"' || here === "'") push('word', start, takeQuoted());
    else push('word', start, takeWord());
  }
  return tokens;
}

function unescaped(word: string): string {
  return word.replaceAll(/\\([\s\S])/g, (whole, next: string) => escapes[next] ?? whole);
}
