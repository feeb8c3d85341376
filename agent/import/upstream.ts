import { entry } from '../state/document.ts';
import { isUpstreamName, upstreamName } from '../state/field-checks.ts';
import { balanceOf } from './balance.ts';
import { defaultsOf, describeServer, readServer, type Server, whatToRegister } from './server.ts';
import { type Service, serviceOfDns, serviceOfTemplate } from './service.ts';
import { action, nameOf, type Statement } from './statements.ts';
import { readUpsync, type Upsync } from './upsync.ts';

/** An upstream that is carried over. */
export interface Found {
  name: string;
  statement: Statement;
  /** Of the upstream in reloadless.yml. */
  fields: Record<string, unknown>;
  datacenter: string | undefined;
  /** Of the Consul that its source names; undefined where it names none. */
  consul: string | undefined;
  /** The lines of its block that stay, such as `keepalive 64;`. */
  kept: string[];
}

export interface Context {
  /** What is said of a statement that is not carried over. */
  lost: (statement: Statement, what: string, why: string) => void;
  /** The statements of an `include`; none when it cannot be read, which is said. */
  included: (statement: Statement) => Statement[];
  /** What an expression of a template stands for, its variables replaced. */
  expand: (expression: string) => string;
  /** What stands for the service's name in a list of all services; undefined outside of one. */
  listed?: string;
}

/** These are of the connections to the peers, and stand behind the balancer as well. */
const kept = ['keepalive', 'keepalive_requests', 'keepalive_timeout', 'keepalive_time'];

/** Whose purpose Reloadless has otherwise: nothing is lost. */
const needless = ['resolver', 'resolver_timeout', 'upsync_dump_path'];

const reasons: Record<string, string> = {
  zone: 'peers are in a shared dict; failures are counted by each worker for itself',
  queue: 'a request without a peer is answered at once',
  state: 'init{ snapshot = ... } keeps the peers',
  ntlm: 'there is none of it',
  health_check: "Consul's checks say who is well",
};

/** What is read of one upstream while its block is walked through. */
interface Reading {
  fields: Record<string, unknown>;
  kept: string[];
  /** Written by hand. */
  fixed: Server[];
  /** Of instances that Consul has. */
  listed: Server[];
  sources: { statement: Statement; service: Service }[];
  upsync: Upsync | undefined;
  balancedBy: Statement | undefined;
}

/** @returns undefined when it stays as it is, which is said */
export function readUpstream(statement: Statement, context: Context): Found | undefined {
  const [written = ''] = statement.args;
  const name = nameIn(written, context);
  if (name === undefined) {
    context.lost(
      statement,
      nameOf(statement),
      `"${written}" is not ${upstreamName}: it stays as it is`,
    );
    return undefined;
  }
  const reading: Reading = {
    fields: {},
    kept: [],
    fixed: [],
    listed: [],
    sources: [],
    upsync: undefined,
    balancedBy: undefined,
  };
  walk(statement.block ?? [], reading, context);
  if (reading.balancedBy !== undefined) {
    const why = 'Lua of its own chooses the peers: the upstream stays as it is';
    context.lost(reading.balancedBy, nameOf(reading.balancedBy), why);
    return undefined;
  }
  const isLocal = ({ address }: Server) => address.startsWith('unix:');
  // dyups lists names alone.
  const isName = statement.block?.length === 0;
  const isKnown = reading.sources.length > 0 || reading.upsync !== undefined || isName;
  if (!isKnown && reading.fixed.every(isLocal)) {
    const why = 'it has no peer that Consul could know: it stays as it is';
    context.lost(statement, nameOf(statement), why);
    return undefined;
  }
  if (isName) {
    context.lost(
      statement,
      nameOf(statement),
      'its servers are not named: /detail of dyups has them',
    );
  }
  return finish(name, statement, reading, context);
}

function nameIn(written: string, { expand, listed }: Context): string | undefined {
  const name = written.replaceAll(/\{\{(.*?)\}\}/g, (whole, said: string) =>
    listed !== undefined && expand(said.trim()) === '.Name' ? listed : whole,
  );
  const isName = isUpstreamName(listed === undefined ? name : name.replace(listed, 'x'));
  return isName && (listed === undefined || name.includes(listed)) ? name : undefined;
}

function walk(statements: Statement[], reading: Reading, context: Context): void {
  const { lost } = context;
  for (const statement of statements) {
    const { name, args } = statement;
    if (name === action) walkAction(statement, reading, context);
    else if (name === 'server') addServer(readServer(statement), reading, context);
    else if (name === 'include') walk(context.included(statement), reading, context);
    else if (name === 'upsync') reading.upsync = readUpsync(statement, lost);
    else if (kept.includes(name) && args.every((text) => /^\w+$/.test(text))) {
      reading.kept.push(`${nameOf(statement)};`);
    } else if (/^balancer_by_lua/.test(name)) reading.balancedBy = statement;
    else if (Object.hasOwn(balanceOf, name)) {
      const taken = balanceOf[name]?.(args) ?? '';
      if (typeof taken === 'string') lost(statement, nameOf(statement), taken);
      else {
        Object.assign(reading.fields, taken.fields);
        if (taken.differs !== undefined) lost(statement, nameOf(statement), taken.differs);
      }
    } else if (!needless.includes(name)) {
      const isCheck = /^check(_|$)/.test(name);
      const why = isCheck ? reasons.health_check : entry(reasons, name);
      lost(statement, nameOf(statement), why ?? 'not understood');
    }
  }
}

function addServer(server: Server, reading: Reading, { lost }: Context): void {
  const { statement, address, parameters } = server;
  const srv = parameters.get('service');
  const [, host = address, port] = /^(.*?)(?::(\d+))?$/.exec(address) ?? [];
  const service = serviceOfDns(host, typeof srv === 'string' ? srv : undefined);
  if (service === undefined) {
    if (!/\.consul\.?$/.test(host)) reading.fixed.push(server);
    else lost(statement, describeServer(server), "a name of Consul's DNS that is no service");
    return;
  }
  if (srv === undefined) {
    const said = port === undefined ? 'no port, which is 80' : `port ${port}`;
    lost(statement, describeServer(server), `${said}: each instance is asked at its own`);
  }
  reading.sources.push({ statement, service });
  reading.listed.push(server);
}

function walkAction(statement: Statement, reading: Reading, context: Context): void {
  const { lost, expand, listed } = context;
  const [said = ''] = statement.args;
  const [, asked] = /^range\s+(.*)$/s.exec(said) ?? [];
  const [, given, expression = asked ?? ''] = /^(.*:=\s*)?(\S.*)$/s.exec(asked ?? '') ?? [];
  const service =
    asked === undefined
      ? undefined
      : serviceOfTemplate(`${given ?? ''}${expand(expression)}`, listed);
  if (service === undefined || statement.block === undefined) {
    lost(statement, nameOf(statement), 'not plain: what is in it is not carried over');
    return;
  }
  for (const why of service.lost) lost(statement, nameOf(statement), why);
  walkInstances(statement.block, service, reading, context);
  reading.sources.push({ statement, service });
  for (const other of statement.otherwise ?? []) {
    // The usual way to have a 502 and an upstream that nginx takes.
    if (other.name === 'server' && other.args.join() === '127.0.0.1:65535') continue;
    lost(other, nameOf(other), 'an upstream without a peer answers 502');
  }
}

/** What stands in a `range` over the instances of a service. */
function walkInstances(
  statements: Statement[],
  service: Service,
  reading: Reading,
  context: Context,
): void {
  const { lost } = context;
  for (const statement of statements) {
    const [said = ''] = statement.args;
    const condition = statement.name === action ? tagIn(said) : undefined;
    if (condition !== undefined && statement.block !== undefined && !statement.otherwise) {
      if (condition.isWanted) service.tags.push(condition.tag);
      else reading.fields.filter = `${JSON.stringify(condition.tag)} not in Service.Tags`;
      walkInstances(statement.block, service, reading, context);
    } else if (statement.name !== 'server') {
      lost(statement, nameOf(statement), 'not plain: without it, every instance is a peer');
    } else {
      const server = readServer(statement);
      reading.listed.push(server);
      addressOf(server, context);
    }
  }
}

/** @returns the tag that the condition of a template asks for; undefined: it asks for something else */
function tagIn(said: string): { tag: string; isWanted: boolean } | undefined {
  const forms = [
    /^if (not \()?\$?\w*\.Tags\s*\|\s*contains\s+"([^"]+)"\)?$/,
    /^if (not \()?\$?\w*\.Tags\.Contains\s+"([^"]+)"\)?$/,
    /^if (not \()?in\s+\$?\w*\.Tags\s+"([^"]+)"\)?$/,
    /^if (not \()?contains\s+"([^"]+)"\s+\$?\w*\.Tags\)?$/,
  ];
  for (const form of forms) {
    const [, not, tag] = form.exec(said) ?? [];
    if (tag !== undefined) return { tag, isWanted: not === undefined };
  }
  return undefined;
}

function addressOf(server: Server, { lost }: Context): void {
  const { statement, address } = server;
  const plain = address.replaceAll(/\{\{\s*(?:\$\w+)?\.(\w+)\s*\}\}/g, '{$1}');
  if (plain === '{Address}:{Port}') return;
  const [, port] = /^\{Address\}(?::(\d+))?$/.exec(plain) ?? [];
  let why = 'not plain: each instance is asked at its own address and port';
  if (plain === '{Address}' || port !== undefined) why = 'each instance is asked at its own port';
  if (plain === '{NodeAddress}:{Port}') {
    why = "an instance is asked at its own address, and at its node's where it has none";
  }
  lost(statement, describeServer(server), why);
}

function finish(name: string, statement: Statement, reading: Reading, context: Context): Found {
  const { lost, listed } = context;
  const { upsync, sources, fields } = reading;
  const [first, ...more] = upsync === undefined ? sources : [upsync, ...sources];
  for (const other of more) {
    const isSame = JSON.stringify(other.service) === JSON.stringify(first?.service);
    if (!isSame) lost(other.statement, nameOf(other.statement), 'an upstream has one service');
  }
  const service = first?.service;
  const asked = service?.service ?? name;
  if (upsync === undefined) {
    for (const server of reading.fixed) {
      lost(server.statement, describeServer(server), whatToRegister(server, asked));
    }
  }
  // With upsync what is in the block itself stands there until Consul has answered.
  const isDumped = (server: Server) => server.statement.file !== statement.file;
  const counted =
    upsync === undefined ? [...reading.listed, ...reading.fixed] : reading.fixed.filter(isDumped);
  const defaults = defaultsOf(counted, (server, what, why) => lost(server.statement, what, why));
  for (const server of counted) sayOthers(server, reading.fixed.includes(server), context);
  const tags = service?.tags ?? [];
  return {
    name,
    statement,
    fields: {
      ...storedAt(upsync?.prefix, name),
      ...(asked !== name && listed === undefined && { service: asked }),
      ...(tags.length > 0 && { tags }),
      ...(service?.min_health === 'passing' && { min_health: 'passing' }),
      ...fields,
      ...upsync?.defaults,
      ...defaults,
    },
    datacenter: service?.datacenter,
    consul: upsync?.consul,
    kept: reading.kept,
  };
}

/** @returns what says that the peers are in KV, below `upstreams/` and the name unless it is said */
function storedAt(prefix: string | undefined, name: string): Record<string, unknown> {
  if (prefix === undefined) return {};
  return { source: 'kv', ...(prefix !== `upstreams/${name}/` && { prefix }) };
}

/** @param isFixed whether it is registered by hand, with its weight and the like */
function sayOthers(server: Server, isFixed: boolean, { lost }: Context): void {
  const known = ['max_fails', 'fail_timeout', 'max_conns', 'slow_start'];
  known.push('resolve', 'service', 'weight');
  if (isFixed) known.push('backup', 'down');
  for (const [name, value] of server.parameters) {
    const text = value === true ? name : `${name}=${value}`;
    const isPlain = typeof value !== 'string' || !value.includes('{{');
    const isWeight = /^\{\{\s*(\$\w+)?\.Weights\.Passing\s*\}\}$/.test(String(value));
    if (name === 'weight' && !isPlain && !isWeight) {
      lost(server.statement, text, "weights are Consul's Weights.Passing");
    } else if (!known.includes(name)) {
      lost(server.statement, text, 'not carried over');
    }
  }
}
