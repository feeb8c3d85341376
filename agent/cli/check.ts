import type { Config, DiscoverRule, UpstreamConfig } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';
import { type Flags, loadConfig } from '../config/resolve.ts';
import { type ConsulClient, createConsulClient } from '../consul/api.ts';
import { ConsulError } from '../consul/error.ts';
import { type AdminClient, createAdminClient } from '../openresty/admin.ts';
import { AdminError } from '../openresty/error.ts';
import { identify } from '../openresty/lease.ts';
import { createFinder, findUpstreams, listed, upstreamOf } from '../source/discover/rules.ts';
import { subject } from '../source/discover/set.ts';
import { describeSource, openSource } from '../source/source.ts';
import { entry } from '../state/document.ts';
import { reason } from '../telemetry/log.ts';
import { columns, type Output, outputLog } from './output.ts';
import { askAll, headline, readStatus, type Status } from './status.ts';

/** What Consul says of a configuration. */
interface Found {
  /** By the rule that found them, their names. */
  names: Map<DiscoverRule, string[]>;
  upstreams: Map<string, UpstreamConfig>;
  /** By upstream, what its source says. */
  seen: Map<string, string>;
  /** For the exit. */
  code: number;
}

/**
 * Checks the configuration and prints what it would follow. Unless `offline`,
 * the rules of discovery are tried on the catalogue, each source is asked once, which shows whether Consul takes its filter, and
 * each target, which shows whether it takes the token.
 *
 * @returns the exit code: 1 when one did not answer, 2 when it refused a request
 * @throws ConfigError
 */
export async function check(flags: Flags, offline: boolean, output: Output): Promise<number> {
  const config = loadConfig(flags, process.env);
  const { client, targets } = openAll(config);
  output.out(`config     ${config.file ?? 'none: the command line alone'}`);
  for (const { name } of config.consul.endpoints) output.out(`consul     ${name}`);
  let code = 0;
  if (offline) {
    for (const target of targets) {
      output.out(`openresty  ${target.name}`);
      target.close();
    }
  } else {
    for (const { name, answer } of askAll(targets)) {
      output.out(`openresty  ${name}`);
      code = Math.max(code, await reach(name, answer, config, output));
    }
  }
  const found = offline ? undefined : await askForAll(client, config, output);
  client.close();
  for (const rule of config.discover) {
    output.out(`${rule.upstream.origin}${describeNames(found?.names.get(rule))}`);
  }
  const rows = [...(found?.upstreams ?? config.upstreams)].map(([name, upstream]) => [
    name,
    describeSource(upstream.source),
    found?.seen.get(name) ?? '',
  ]);
  for (const line of columns([['UPSTREAM', 'SOURCE', 'NOW'], ...rows])) output.out(line);
  return Math.max(code, found?.code ?? 0);
}

/** The files that these read are a part of the configuration: all their faults are named at once. */
function openAll(config: Config): { client: ConsulClient; targets: AdminClient[] } {
  const faults: string[] = [];

  function attempt<T>(open: () => T): T[] {
    try {
      return [open()];
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      faults.push(...error.faults);
      return [];
    }
  }

  const [client] = attempt(() => createConsulClient(config.consul));
  const targets = config.openresty.flatMap((target) => attempt(() => createAdminClient(target)));
  if (client === undefined || faults.length > 0) throw new ConfigError(faults);
  return { client, targets };
}

/** Prints what a target has. @returns the exit code */
async function reach(
  target: string,
  answer: Promise<unknown>,
  config: Config,
  output: Output,
): Promise<number> {
  try {
    const status = readStatus(target, await answer);
    output.out(`           ${headline(status)}`);
    output.out(`           owner ${config.owner}: ${describeAgent(status, config)}`);
    return 0;
  } catch (error) {
    output.err(`reloadless: ${reason(error)}`);
    return error instanceof AdminError && error.code === 'openresty/refused' ? 2 : 1;
  }
}

/** Who has the lease of our owner. */
function describeAgent({ agents }: Status, config: Config): string {
  const agent = entry(agents, config.owner);
  if (agent === undefined) return 'no agent';
  const whose = agent.id === identify(config).identity.id ? 'this' : 'another';
  return `agent of ${whose} configuration, pid ${agent.pid} on ${agent.host}, since ${agent.since}`;
}

/** @param names undefined: nobody was asked */
function describeNames(names: string[] | undefined): string {
  if (names === undefined) return '';
  return names.length === 0 ? ': finds nothing' : `: finds ${names.length}: ${listed(names)}`;
}

async function askForAll(client: ConsulClient, config: Config, output: Output): Promise<Found> {
  const { consistency = 'default' } = config.consul;
  const names = new Map(config.discover.map((rule): [DiscoverRule, string[]] => [rule, []]));
  const upstreams = new Map(config.upstreams);
  const found: Found = { names, upstreams, seen: new Map(), code: 0 };

  async function attempt(what: string, work: (signal: AbortSignal) => Promise<void>) {
    const signal = AbortSignal.timeout(10_000);
    try {
      await work(signal);
    } catch (error) {
      if (!(error instanceof ConsulError) && error !== signal.reason) throw error;
      output.err(`reloadless: ${what}: ${reason(error)}`);
      const isInvalid = error instanceof ConsulError && error.code === 'consul/invalid';
      found.code = Math.max(found.code, isInvalid ? 2 : 1);
    }
  }

  async function discover(signal: AbortSignal): Promise<void> {
    const { catalogue } = await client.catalogue({ consistency }, signal);
    const finders = config.discover.map(createFinder);
    const { matches, notes } = findUpstreams(finders, catalogue, config.upstreams);
    for (const note of notes) output.err(`reloadless: ${subject}: ${note}`);
    for (const [name, match] of matches) {
      names.get(match.rule)?.push(name);
      upstreams.set(name, upstreamOf(match));
    }
  }

  async function ask(upstream: string, { source, settings }: UpstreamConfig): Promise<void> {
    const log = outputLog(output);
    const remembered = () => ({});
    const options = {
      upstream,
      config: source,
      client,
      consistency,
      wait: client.waits,
      log,
      remembered,
    };
    const opened = openSource({ ...options, settings: () => settings });
    await attempt(upstream, async (signal) => {
      found.seen.set(upstream, await opened.summary(signal));
    }).finally(() => opened.stop());
  }

  if (config.discover.length > 0) await attempt(subject, discover);
  await Promise.all([...upstreams].map(([name, upstream]) => ask(name, upstream)));
  return found;
}
