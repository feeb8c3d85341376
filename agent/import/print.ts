import { stringify } from 'yaml';
import { placeholder } from '../source/discover/rules.ts';
import type { Imported } from './read.ts';
import type { Found } from './upstream.ts';

/** Between reloadless.yml and the lines for nginx. */
export const divider = '# --- nginx ---';

/** The block that serves all of them. */
const all = 'services';

type Carried = Pick<Imported, 'upstreams' | 'rules'>;

/** What reloadless.yml is to say. */
export function fileOf({ upstreams, rules }: Carried): object {
  const found = [...upstreams, ...rules.map((one) => one.found)];
  const [address] = found.flatMap(({ consul }) => consul ?? []);
  const asked = new Set(found.map(({ datacenter }) => datacenter));
  const [datacenter] = asked.size === 1 ? asked : [];
  const consul = {
    ...(address !== undefined && { address }),
    ...(datacenter !== undefined && { datacenter }),
  };
  return {
    ...(Object.keys(consul).length > 0 && { consul }),
    ...(upstreams.length > 0 && {
      upstreams: Object.fromEntries(upstreams.map(({ name, fields }) => [name, fields])),
    }),
    ...(rules.length > 0 && { discover: rules.map(ruleOf) }),
  };
}

function ruleOf({ found, tags: [tag, ...tags] }: Imported['rules'][number]): object {
  return {
    ...(tag === undefined ? { service: '*' } : { tag }),
    ...(tags.length > 0 && { tags }),
    ...(found.name !== placeholder && { name: found.name }),
    ...found.fields,
  };
}

/** @returns reloadless.yml, and behind the divider the lines for nginx; one line each */
export function printImported({ upstreams, rules }: Carried): string[] {
  const lines = [
    ...stringify(fileOf({ upstreams, rules })).trimEnd().split('\n'),
    divider,
    '# once in the http block:',
    'include /etc/nginx/reloadless.conf;',
    ...upstreams.flatMap((found) => block(found.name, `"${found.name}"`, found)),
  ];
  const [rule] = rules;
  if (rule !== undefined) {
    lines.push(
      ...block(all, '', rule.found),
      `# one block for every service that is found: proxy_pass http://${all};`,
      '# with its name in $reloadless_upstream',
    );
  }
  const found = [...upstreams, ...rules.map((one) => one.found)];
  if (found.some(({ fields }) => fields.sticky !== undefined)) {
    lines.push(
      '# in each location of an upstream with sticky:',
      '#     header_filter_by_lua_block { require("reloadless").header() }',
    );
  }
  return lines;
}

function block(name: string, argument: string, { kept }: Found): string[] {
  return [
    '',
    `upstream ${name} {`,
    '    server 127.0.0.1:1 down;',
    `    balancer_by_lua_block { require("reloadless").balance(${argument}) }`,
    ...kept.map((line) => `    ${line}`),
    '}',
  ];
}
