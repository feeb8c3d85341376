import { ImportError, type Place, type Token, tokenize } from './lexer.ts';

/** The name of a statement that is an action of a template; its one argument is what it says. */
export const action = '{{';

/** A directive of nginx, or an action of a template. */
export interface Statement extends Place {
  name: string;
  args: string[];
  /** Of a directive between its braces, of an action up to its `end`. */
  block?: Statement[];
  /** Behind the `else` of an action. */
  otherwise?: Statement[];
}

/**
 * Reads the statements of a configuration, or of a template of one whose actions
 * stand between statements.
 *
 * @param file its name, for messages
 * @throws ImportError naming file and line
 */
export function parseStatements(text: string, file: string): Statement[] {
  const tokens = tokenize(text, file);
  let next = 0;

  function fail(why: string, line: number): never {
    throw new ImportError(`${file}:${line}: ${why}`);
  }

  /** @param opener what is to be ended; undefined: the file */
  function parseBlock(opener?: Statement): { statements: Statement[]; end?: Token } {
    const statements: Statement[] = [];
    for (;;) {
      const token = tokens[next];
      if (token === undefined) {
        if (opener === undefined) return { statements };
        return fail(`${nameOf(opener)} has no end`, opener.line);
      }
      next += 1;
      const { kind, text: said, line } = token;
      if (kind === 'word') statements.push(parseDirective(token));
      else if (kind === 'action' && /^(end|else)\b/.test(said)) {
        if (opener?.name === action) return { statements, end: token };
        fail(`{{${said}}} ${opener === undefined ? 'ends nothing' : `in ${nameOf(opener)}`}`, line);
      } else if (kind === 'action') statements.push(parseAction(said, line));
      else if (kind === '}' && opener !== undefined && opener.name !== action) {
        return { statements, end: token };
      } else fail(`unexpected "${kind}"`, line);
    }
  }

  function parseDirective({ text: name, line }: Token): Statement {
    const statement: Statement = { file, line, name, args: [] };
    for (;;) {
      const token = tokens[next];
      next += 1;
      if (token === undefined) return fail(`${name} has no ";"`, line);
      if (token.kind === 'word') statement.args.push(token.text);
      else if (token.kind === ';' || token.kind === 'lua') return statement;
      else if (token.kind === '{') {
        statement.block = parseBlock(statement).statements;
        return statement;
      } else return fail(`unexpected "${token.text || token.kind}" in ${name}`, token.line);
    }
  }

  function parseAction(said: string, line: number): Statement {
    const statement: Statement = { file, line, name: action, args: [said] };
    if (!/^(range|if|with|define|block)\b/.test(said)) return statement;
    let { statements, end } = parseBlock(statement);
    statement.block = statements;
    while (end !== undefined && end.text !== 'end') {
      const condition = end.text.slice('else'.length).trim();
      const before = statement.otherwise ?? [];
      if (condition !== '') before.push({ file, line: end.line, name: action, args: [condition] });
      ({ statements, end } = parseBlock(statement));
      statement.otherwise = [...before, ...statements];
    }
    return statement;
  }

  return parseBlock().statements;
}

/** As a person would write it, for messages. */
export function nameOf({ name, args }: Statement): string {
  if (name === action) return `{{${args.join(' ')}}}`;
  return [name, ...args].join(' ');
}
