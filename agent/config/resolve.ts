import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { placeholder } from '../source/discover/rules.ts';
import type { HealthConfig } from '../source/health/config.ts';
import { sourceKinds } from '../source/source.ts';
import type { Settings } from '../state/document.ts';
import { isUpstreamName, upstreamName } from '../state/field-checks.ts';
import { type Endpoint, isLoopback, parseEndpoint } from './address.ts';
import {
  type Config,
  type ConsulConfig,
  type DiscoverRule,
  mostFollowed,
  type TargetConfig,
  type UpstreamConfig,
} from './config.ts';
import { type ConsulEnvironment, consulEnvironment } from './environment.ts';
import { ConfigError } from './error.ts';
import { readConfigFile } from './file.ts';
import {
  type DiscoverFileRule,
  defaultKind,
  type FileConfig,
  type UpstreamFileConfig,
} from './file-schema.ts';

/** What a command line may say; undefined where it says nothing. */
export interface Flags {
  config?: string | undefined;
  consul?: string;
  openresty?: string[];
  tokenFile?: string;
  service?: string[];
  snapshot?: string;
  logLevel?: Config['log']['level'];
  logFormat?: Config['log']['format'];
}

const defaultConsul = 'http://127.0.0.1:8500';
const defaultTarget = 'http://127.0.0.1:9410';
/** Under half of Consul's default limit of 200 connections for one client address. */
const defaultMaxConnections = 90;
/** Of a command that is run after a change, in seconds. */
const defaultTimeout = 30;
/** Where the configuration and the token of this machine are. */
const defaultFolder = '/etc/reloadless';

/**
 * Puts together what was configured: a flag goes before the environment, that
 * before the file, and that before the default. Without `-c` and `--service` the
 * file is that of this machine, where there is one.
 *
 * @param folder of this machine's file and token
 * @throws ConfigError
 */
export function loadConfig(flags: Flags, env: NodeJS.ProcessEnv, folder = defaultFolder): Config {
  const config = fileOf(flags, folder);
  const file = config === undefined ? {} : readConfigFile(config);
  return resolveConfig({ ...flags, config }, env, file, existing(folder, 'admin.token'));
}

/** Only the targets, for a command that needs nothing else. @throws ConfigError */
export function loadTargets(
  flags: Flags,
  env: NodeJS.ProcessEnv,
  folder = defaultFolder,
): TargetConfig[] {
  const config = fileOf(flags, folder);
  const file = config === undefined ? {} : readConfigFile(config);
  return resolveTargets(flags, env, file.openresty, existing(folder, 'admin.token'));
}

function fileOf({ config, service }: Flags, folder: string): string | undefined {
  return config ?? (service === undefined ? existing(folder, 'reloadless.yml') : undefined);
}

function existing(folder: string, name: string): string | undefined {
  const path = join(folder, name);
  return existsSync(path) ? path : undefined;
}

/**
 * As `loadConfig`, with the content of the file given.
 *
 * @param localToken file of the token for targets on loopback that name none
 */
export function resolveConfig(
  flags: Flags,
  env: NodeJS.ProcessEnv,
  file: FileConfig,
  localToken?: string,
): Config {
  const config: Config = {
    file: flags.config,
    consul: resolveConsul(flags, consulEnvironment(env), file.consul ?? {}),
    openresty: resolveTargets(flags, env, file.openresty, localToken),
    snapshot: flags.snapshot ?? file.snapshot,
    owner: file.owner ?? 'reloadless',
    upstreams: resolveUpstreams(flags.service ?? [], file.upstreams ?? {}, file.settle),
    discover: (file.discover ?? []).map((rule) => resolveRule(rule, file.settle)),
    on_change: file.on_change && {
      command: file.on_change.command,
      timeout: (file.on_change.timeout ?? defaultTimeout) * 1000,
    },
    pid_file: file.pid_file,
    log: {
      level: flags.logLevel ?? file.log?.level ?? 'info',
      format: flags.logFormat ?? file.log?.format ?? 'json',
    },
  };
  const { upstreams, discover, consul } = config;
  if (upstreams.size === 0 && discover.length === 0) {
    throw new ConfigError(
      'no upstream is configured: give --service NAME, or upstreams or discover in -c FILE',
    );
  }
  const most = mostFollowed(config);
  if (upstreams.size > most) {
    throw new ConfigError(
      `upstreams: ${upstreams.size} services, but consul.max_connections of ` +
        `${consul.max_connections} carries ${most}${discover.length > 0 ? ' and discovery' : ''}`,
    );
  }
  return config;
}

function resolveConsul(
  flags: Flags,
  env: ConsulEnvironment,
  file: NonNullable<FileConfig['consul']>,
): ConsulConfig {
  const tokenInEnv = env.token !== undefined || env.token_file !== undefined;
  return {
    endpoints: consulEndpoints(flags, env, file),
    token_file: tokenInEnv ? env.token_file : file.token_file,
    token: env.token,
    datacenter: file.datacenter,
    namespace: env.namespace ?? file.namespace,
    consistency: file.consistency,
    wait: file.wait === undefined ? undefined : file.wait * 1000,
    max_connections: file.max_connections ?? defaultMaxConnections,
    tls: {
      ca_file: env.ca_file ?? file.tls?.ca_file,
      cert_file: env.cert_file ?? file.tls?.cert_file,
      key_file: env.key_file ?? file.tls?.key_file,
      server_name: env.server_name ?? file.tls?.server_name,
      verify: env.verify ?? file.tls?.verify ?? true,
    },
  };
}

function consulEndpoints(
  flags: Flags,
  env: ConsulEnvironment,
  file: NonNullable<FileConfig['consul']>,
): Endpoint[] {
  if (flags.consul !== undefined) return [parseEndpoint(flags.consul, '--consul')];
  const endpoints =
    env.address !== undefined
      ? [parseEndpoint(env.address, 'CONSUL_HTTP_ADDR')]
      : fileEndpoints(file.address ?? defaultConsul);
  return env.ssl ? endpoints.map(overTls) : endpoints;
}

function fileEndpoints(address: string | string[]): Endpoint[] {
  if (typeof address === 'string') return [parseEndpoint(address, 'consul.address')];
  return address.map((text, i) => parseEndpoint(text, `consul.address.${i}`));
}

function overTls(endpoint: Endpoint): Endpoint {
  if (endpoint.socketPath !== undefined) return endpoint;
  const secure = (text: string) => text.replace(/^http:/, 'https:');
  return { name: secure(endpoint.name), url: secure(endpoint.url) };
}

/**
 * The token of a target is that of the command line, its own, that of the
 * environment, or the local one, which goes nowhere but to this machine.
 */
function resolveTargets(
  flags: Flags,
  env: NodeJS.ProcessEnv,
  file: FileConfig['openresty'],
  localToken: string | undefined,
): TargetConfig[] {
  const known = (file ?? []).map(({ address, token_file }, i) => ({
    endpoint: parseEndpoint(address, `openresty.${i}.address`),
    token_file,
  }));
  // A target of the command line that the file knows keeps the file's token.
  const named = flags.openresty?.map((address) => {
    const endpoint = parseEndpoint(address, '--openresty');
    const token_file = known.find((one) => one.endpoint.name === endpoint.name)?.token_file;
    return { endpoint, token_file };
  });
  const fallback = { endpoint: parseEndpoint(defaultTarget, 'openresty'), token_file: undefined };
  const targets = named ?? (known.length > 0 ? known : [fallback]);
  const inEnv = env.RELOADLESS_TOKEN_FILE === '' ? undefined : env.RELOADLESS_TOKEN_FILE;
  return targets.map(({ endpoint, token_file }) => ({
    endpoint,
    token_file:
      flags.tokenFile ?? token_file ?? inEnv ?? (isLoopback(endpoint) ? localToken : undefined),
  }));
}

function resolveUpstreams(
  services: string[],
  file: Record<string, UpstreamFileConfig>,
  settle: FileConfig['settle'],
): Map<string, UpstreamConfig> {
  const upstreams = new Map(
    Object.entries(file).map(([name, upstream]) => [name, resolveUpstream(name, upstream, settle)]),
  );
  for (const service of services) {
    if (!isUpstreamName(service)) {
      throw new ConfigError(`--service: "${service}" is not ${upstreamName}`);
    }
    if (!upstreams.has(service)) upstreams.set(service, resolveUpstream(service, {}, settle));
  }
  return upstreams;
}

function resolveRule(
  { tag, service = '*', name = placeholder, ...written }: DiscoverFileRule,
  settle: FileConfig['settle'],
): DiscoverRule {
  const tags = [...(tag === undefined ? [] : [tag]), ...(written.tags ?? [])];
  const terms = tags.map((one) => `tag ${one}`);
  if (service !== '*' || tags.length === 0) terms.push(`service ${service}`);
  if (written.filter !== undefined) terms.push(`filter ${written.filter}`);
  const upstream = resolveUpstream('', { ...written, tags } as UpstreamFileConfig, settle);
  const source = upstream.source as HealthConfig;
  const origin = `discover: ${terms.join(', ')}`;
  return { tags, service, name, upstream: { ...upstream, source, origin, isTransient: true } };
}

function resolveUpstream(
  name: string,
  { source = defaultKind, hold_empty = 60, settle, ...written }: UpstreamFileConfig,
  settleAll: FileConfig['settle'],
): UpstreamConfig {
  const kind = sourceKinds[source];
  const isOfSource = (key: string) => key in kind.keys;
  const part = (isWanted: (key: string) => boolean) => {
    return Object.fromEntries(Object.entries(written).filter(([key]) => isWanted(key)));
  };
  const wait = settle ?? settleAll;
  const config = kind.configure(name, part(isOfSource));
  return {
    origin: 'configuration',
    source: config,
    settings: { ...kind.defaults?.(config), ...part((key) => !isOfSource(key)) } as Settings,
    holdFor: hold_empty * 1000,
    ...(wait && { settle: { min: wait.min * 1000, max: wait.max * 1000 } }),
  };
}
