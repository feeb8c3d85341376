import { entry } from '../state/document.ts';
import { nameOf, type Statement } from './statements.ts';

/** A `server` of an upstream, cut into its address and its parameters. */
export interface Server {
  statement: Statement;
  address: string;
  /** By name; a parameter without a value has `true`. */
  parameters: Map<string, string | true>;
}

export function readServer(statement: Statement): Server {
  const [address = '', ...rest] = statement.args;
  const parameters = rest.map((text): [string, string | true] => {
    const [, name, value] = /^([a-z_]+)=(.*)$/s.exec(text) ?? [];
    return name === undefined ? [text, true] : [name, value ?? ''];
  });
  return { statement, address, parameters: new Map(parameters) };
}

/** @returns seconds; undefined when nginx would not take it for some */
export function readTime(text: string): number | undefined {
  const units: Record<string, number> = { '': 1, s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
  if (!/^(\d+[smhdw]\s*)*\d+[smhdw]?$/.test(text)) return undefined;
  let seconds = 0;
  for (const [, number, unit = ''] of text.matchAll(/(\d+)([smhdw]?)/g)) {
    seconds += Number(number) * (units[unit] ?? 0);
  }
  return seconds <= 86_400 ? seconds : undefined;
}

/** What each parameter is to an instance of Consul. */
const inConsul: Record<string, (value: string | true) => string | undefined> = {
  weight: (value) => (value === '1' ? undefined : `Weights.Passing ${value}`),
  backup: () => 'Meta.backup "true"',
  down: () => 'maintenance',
};

/** What a person has to do about a server that is written by hand. */
export function whatToRegister({ address, parameters }: Server, service: string): string {
  if (address.startsWith('unix:')) return 'a peer is an address and a port';
  const with_ = [...parameters].flatMap(([name, value]) => entry(inConsul, name)?.(value) ?? []);
  const how = with_.length === 0 ? '' : `, with ${with_.join(' and ')}`;
  return `register ${address} in Consul as an instance of ${service}${how}`;
}

/** What an upstream says for all of its peers. */
export interface Defaults {
  max_fails?: number;
  fail_timeout?: number;
  max_conns?: number;
  slow_start?: number;
}

const times = ['fail_timeout', 'slow_start'] as const;
const names = ['max_fails', 'max_conns', ...times] as const;

/**
 * What the servers say, if all say the same; one that is down may say nothing.
 *
 * @param lost hears of each that says something else, or what nobody understands
 */
export function defaultsOf(
  servers: Server[],
  lost: (server: Server, what: string, why: string) => void,
): Defaults {
  const defaults: Defaults = {};
  const isUp = ({ parameters }: Server) => !parameters.has('down');
  const head = servers.find(isUp) ?? servers[0];
  if (head === undefined) return defaults;
  for (const name of names) {
    const written = head.parameters.get(name);
    for (const server of servers) {
      const other = server.parameters.get(name);
      if (other === written || (other === undefined && !isUp(server))) continue;
      const said = other === undefined ? `no ${name}` : `${name}=${other}`;
      const first = written === undefined ? 'none' : written;
      lost(server, said, `the first server has ${first}, and an upstream has one for all`);
    }
    if (written === undefined) continue;
    const isTime = times.some((time) => time === name);
    const value = isTime ? readTime(String(written)) : readCount(written);
    if (value === undefined) lost(head, `${name}=${written}`, 'not a value that can be used');
    else defaults[name] = value;
  }
  return defaults;
}

function readCount(text: string | true): number | undefined {
  const value = Number(text);
  return /^\d+$/.test(String(text)) && value <= 65_535 ? value : undefined;
}

export function describeServer({ statement }: Server): string {
  return nameOf(statement);
}
