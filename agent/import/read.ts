import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { basename, dirname, extname, isAbsolute, join, resolve } from 'node:path';
import { ConfigError } from '../config/error.ts';
import { parseConfig } from '../config/file.ts';
import { placeholder } from '../source/discover/rules.ts';
import { parseAnswer } from './answer.ts';
import { ImportError, type Place } from './lexer.ts';
import { fileOf } from './print.ts';
import { action, nameOf, parseStatements, type Statement } from './statements.ts';
import { type Context, type Found, readUpstream } from './upstream.ts';

/** What is not carried over. */
export interface Lost extends Place {
  what: string;
  why: string;
}

export interface Imported {
  upstreams: Found[];
  /** Rules of discovery: an upstream for each service, whose name stands in the upstream's. */
  rules: { found: Found; tags: string[] }[];
  lost: Lost[];
}

const include = 'merge the lines of /etc/nginx/reloadless.conf into it';
const elsewhere: [RegExp, string][] = [
  [/^(init_by_lua|init_worker_by_lua)/, include],
  [/^(lua_package_path|lua_malloc_trim)$/, include],
  [/^log_by_lua/, 'call require("reloadless").log() in it'],
  [/^dyups_/, 'the admin API is a server of its own: take it out'],
  [/^upstream_show$/, 'reloadless status shows the peers: take it out'],
  [/^health_check$/, "Consul's checks say who is well: take it out"],
];

/** What is around a statement. */
interface Scope {
  /** A stream block, whose upstreams are not of HTTP. */
  isStream?: boolean;
  /** What stands for a service's name, in a template's list of all services. */
  listed?: string;
  tags?: string[];
}

/**
 * Reads configurations of nginx, with what they include, templates of them, and
 * what dyups answers.
 *
 * @throws ImportError when a file cannot be read or is none of these
 */
export function readFiles(files: string[]): Imported {
  const result: Imported = { upstreams: [], rules: [], lost: [] };
  const variables = new Map<string, string>();
  const opened: string[] = [];

  function lose({ file, line }: Place, what: string, why: string): void {
    result.lost.push({ file, line, what: what.replaceAll(/\s+/g, ' '), why });
  }

  function open(file: string): Statement[] {
    let text: string;
    try {
      text = readFileSync(file, 'utf8');
    } catch (error) {
      throw new ImportError(`${file}: ${(error as Error).message}`);
    }
    return parseAnswer(text, file) ?? parseStatements(text, file);
  }

  /** @param root of the first file: nginx reads all paths from there */
  function included(statement: Statement, root: string): Statement[] {
    const [pattern = ''] = statement.args;
    const paths = expandGlob(isAbsolute(pattern) ? pattern : join(root, pattern));
    if (paths.length === 0) lose(statement, nameOf(statement), 'no such file: it is not read');
    return paths.flatMap((path) => {
      if (opened.includes(resolve(path))) {
        lose(statement, nameOf(statement), 'it includes itself');
        return [];
      }
      opened.push(resolve(path));
      const statements = open(path).flatMap((one) =>
        one.name === 'include' ? included(one, root) : [one],
      );
      opened.pop();
      return statements;
    });
  }

  /** A variable of the template is what was assigned to it. */
  function expand(expression: string): string {
    return expression
      .replaceAll(/\$\w+(?![\w.])/g, (name) => variables.get(name) ?? name)
      .replace(/^\((.*)\)$/, '$1');
  }

  function context(root: string, { listed }: Scope): Context {
    return {
      lost: lose,
      included: (statement) => included(statement, root),
      expand,
      ...(listed !== undefined && { listed }),
    };
  }

  function walk(statements: Statement[], root: string, scope: Scope): void {
    for (const statement of statements) {
      const { name, block } = statement;
      if (name === action) walkAction(statement, root, scope);
      else if (name === 'include') walk(included(statement, root), root, scope);
      else if (name === 'upstream') addUpstream(statement, root, scope);
      else {
        look(statement, scope);
        if (block !== undefined)
          walk(block, root, { ...scope, ...(name === 'stream' && { isStream: true }) });
      }
    }
  }

  function addUpstream(statement: Statement, root: string, scope: Scope): void {
    if (scope.isStream) {
      lose(statement, nameOf(statement), 'Reloadless balances HTTP: it stays as it is');
      return;
    }
    const found = readUpstream(statement, context(root, scope));
    if (found === undefined) return;
    const rule = scope.listed === undefined ? [] : [{ found, tags: scope.tags ?? [] }];
    const fault = faultOf({ upstreams: rule.length === 0 ? [found] : [], rules: rule });
    if (fault !== undefined) {
      lose(statement, nameOf(statement), fault);
      return;
    }
    if (rule.length > 0) {
      result.rules.push(...rule);
      return;
    }
    const other = result.upstreams.find(({ name }) => name === found.name);
    if (other === undefined) result.upstreams.push(found);
    else {
      const { file, line } = other.statement;
      lose(statement, nameOf(statement), `it was read at ${file}:${line}: this one is not taken`);
    }
  }

  /** What is not of an upstream, and has to do with its peers or with the template. */
  function look(statement: Statement, { listed }: Scope): void {
    const { name, args } = statement;
    const [, why] = elsewhere.find(([pattern]) => pattern.test(name)) ?? [];
    if (why !== undefined) lose(statement, nameOf(statement), why);
    const text = args.join(' ');
    if (/\.(service|query)\.([\w-]+\.)*consul\b/.test(text)) {
      lose(statement, nameOf(statement), "a name of Consul's DNS: make an upstream of it");
    } else if (/\$dyups_/.test(text)) {
      lose(
        statement,
        nameOf(statement),
        'set $reloadless_upstream, and use one block for every service',
      );
    } else if (text.includes('{{')) {
      const one = 'write it by hand; $reloadless_upstream lets one block serve every service';
      lose(
        statement,
        nameOf(statement),
        listed === undefined ? 'no file is rendered: write it by hand' : one,
      );
    }
  }

  function walkAction(statement: Statement, root: string, scope: Scope): void {
    const [said = ''] = statement.args;
    const block = statement.block ?? [];
    const assigned = /^(\$\w+)\s*:=\s*(.+)$/s.exec(said);
    if (assigned !== null) {
      const [, name = '', value = ''] = assigned;
      variables.set(name, expand(value));
      return;
    }
    if (/^range\s+services$/.test(said)) {
      walk(block, root, { ...scope, listed: placeholder });
      return;
    }
    const tag = scope.listed !== undefined ? wantedTag(said) : undefined;
    if (tag !== undefined && statement.otherwise === undefined) {
      walk(block, root, { ...scope, tags: [...(scope.tags ?? []), tag] });
      return;
    }
    const isIf = /^if\b/.test(said);
    const why = isIf ? 'what is in it is taken as if it were so' : 'not plain: not carried over';
    lose(statement, nameOf(statement), why);
    if (isIf) walk(block, root, scope);
    for (const other of statement.otherwise ?? []) lose(other, nameOf(other), 'not carried over');
  }

  for (const file of files) {
    const statements = open(file);
    opened.push(resolve(file));
    const isBare = ({ name, block }: Statement) => name === 'server' && block === undefined;
    const before = result.upstreams.length + result.rules.length + result.lost.length;
    walk(
      statements.filter((one) => !isBare(one)),
      dirname(file),
      {},
    );
    opened.pop();
    const servers = statements.filter(isBare);
    const [first] = servers;
    if (first !== undefined) {
      // What upsync dumps, or what an upstream includes: the file names it.
      const args = [basename(file, extname(file))];
      addUpstream({ ...first, name: 'upstream', args, block: servers }, dirname(file), {});
    } else if (result.upstreams.length + result.rules.length + result.lost.length === before) {
      lose({ file, line: 1 }, 'no upstream', 'nothing is carried over');
    }
  }
  sayMany(result, lose);
  result.lost.sort((a, b) => (a.file === b.file ? a.line - b.line : 0));
  return result;
}

/** One file of ours asks one Consul, and one of its datacenters. */
function sayMany(
  { upstreams, rules }: Imported,
  lose: (place: Place, what: string, why: string) => void,
): void {
  const all = [...upstreams, ...rules.map(({ found }) => found)];
  const [consul] = all.flatMap((found) => found.consul ?? []);
  const isOne = new Set(all.map(({ datacenter }) => datacenter)).size === 1;
  for (const { statement, ...found } of all) {
    if (found.consul !== undefined && found.consul !== consul) {
      lose(statement, found.consul, `one Consul is asked: ${consul}`);
    }
    if (found.datacenter !== undefined && !isOne) {
      lose(
        statement,
        `datacenter ${found.datacenter}`,
        'one datacenter is asked: consul.datacenter',
      );
    }
  }
}

/** Why our own configuration would not have it. */
function faultOf(carried: Pick<Imported, 'upstreams' | 'rules'>): string | undefined {
  try {
    parseConfig(JSON.stringify(fileOf(carried)), 'reloadless.yml');
    return undefined;
  } catch (error) {
    if (error instanceof ConfigError) return error.faults[0];
    throw error;
  }
}

function wantedTag(said: string): string | undefined {
  const forms = [
    /^if\s+in\s+\.Tags\s+"([^"]+)"$/,
    /^if\s+\.Tags\s*\|\s*contains\s+"([^"]+)"$/,
    /^if\s+\.Tags\.Contains\s+"([^"]+)"$/,
  ];
  return forms.map((form) => form.exec(said)?.[1]).find((tag) => tag !== undefined);
}

/** The files that a path names, `*` and `?` in its last part among it, in order. */
function expandGlob(path: string): string[] {
  const name = basename(path);
  const folder = dirname(path);
  if (!/[*?]/.test(name)) return existsSync(path) ? [path] : [];
  const pattern = name
    .replaceAll(/[.+^${}()|[\]\\]/g, '\\$&')
    .replaceAll('*', '.*')
    .replaceAll('?', '.');
  const isWanted = new RegExp(`^${pattern}$`);
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .filter((one) => isWanted.test(one))
    .sort()
    .map((one) => join(folder, one));
}
