import { sticky as stickyField } from '../state/field-checks.ts';
import { readTime } from './server.ts';

/** What a directive of an upstream becomes. */
export interface Taken {
  /** Of the upstream in reloadless.yml. */
  fields?: Record<string, unknown>;
  /** What is other than it was. */
  differs?: string;
}

const ofAddress = { balance: 'hash', hash_key: '$remote_addr' };

/** By the directive; undefined: it cannot be carried over, or not with these arguments. */
export const balanceOf: Record<string, (args: string[]) => Taken | string> = {
  least_conn: () => ({ fields: { balance: 'least_conn' } }),
  ip_hash: () => ({
    fields: ofAddress,
    differs: 'an IPv4 client is hashed by all of its address, not by its first three numbers',
  }),
  hash([key = '', method]) {
    if (!/\$(\w|\{\w+\})/.test(key)) return 'hash_key must have a variable in it';
    const fields = { balance: 'hash', hash_key: key };
    if (method === 'consistent') return { fields };
    return { fields, differs: 'hashing is consistent: keys go to other peers once' };
  },
  random(args) {
    const isBetterOfTwo = args[0] === 'two' && (args[1] ?? 'least_conn') === 'least_conn';
    if (isBetterOfTwo) return { fields: { balance: 'random' } };
    const differs = 'it takes the better of two, the one with fewer requests';
    return { fields: { balance: 'random' }, differs };
  },
  least_time: () => ({
    fields: { balance: 'ewma' },
    differs: "ewma weighs a peer's time and requests, and looks at two peers",
  }),
  upsync_lb: ([method]) => {
    if (method === 'roundrobin') return {};
    if (method === 'least_conn') return { fields: { balance: 'least_conn' } };
    if (method === 'ip_hash') return balanceOf.ip_hash?.([]) ?? '';
    return 'give it as balance: hash with a hash_key';
  },
  sticky: readSticky,
};

/** `sticky cookie NAME …` of nginx, or `sticky name=NAME …` of nginx-sticky-module. */
function readSticky(args: string[]): Taken | string {
  const [kind = '', second] = args;
  const isCookie = kind === 'cookie';
  if (!isCookie && kind !== '' && !kind.includes('=') && !/^(secure|httponly)$/i.test(kind)) {
    return 'sticky is a cookie here: write sticky: NAME';
  }
  let cookie = isCookie ? (second ?? '') : 'route';
  const attributes: Record<string, unknown> = {};
  const unknown: string[] = [];
  for (const text of args.slice(isCookie ? 2 : 0)) {
    const [, name = text, value = ''] = /^(\w+)=(.*)$/.exec(text) ?? [];
    const seconds = readTime(value);
    if (name === 'name' && !isCookie) cookie = value;
    else if (name === 'expires' && seconds !== undefined) attributes.max_age = seconds;
    else if (name === 'domain') attributes.domain = value.replace(/^\./, '');
    else if (name === 'path') attributes.path = value;
    else if (name === 'secure') attributes.secure = true;
    else if (name === 'httponly') attributes.http_only = true;
    else if (name === 'samesite') attributes.same_site = value.toLowerCase();
    else unknown.push(text);
  }
  const given = { cookie, ...attributes };
  const sticky = Object.keys(attributes).length === 0 ? cookie : given;
  if (!stickyField.safeParse(sticky).success)
    return `not a cookie that can be set: ${JSON.stringify(given)}`;
  const lost = unknown.length === 0 ? {} : { differs: `${unknown.join(' ')}: not carried over` };
  return { fields: { sticky }, ...lost };
}
