import type { HealthConfig } from '../source/health/config.ts';
import type { SourceConfig } from '../source/source.ts';
import type { Declared } from '../state/state.ts';
import type { Settle } from '../util/quiet.ts';
import type { Endpoint } from './address.ts';
import type { logLevels } from './file-schema.ts';

export type Consistency = 'stale' | 'default' | 'consistent';

export interface ConsulConfig {
  /** At least one; they are tried in turn. */
  endpoints: Endpoint[];
  /** Wins over `token`, as in the `consul` command; read again when it is refused. */
  token_file: string | undefined;
  token: string | undefined;
  datacenter: string | undefined;
  namespace: string | undefined;
  /** undefined: the command's own default. */
  consistency: Consistency | undefined;
  /** How long Consul may hold a blocking query, in ms; undefined: as it fits. */
  wait: number | undefined;
  max_connections: number;
  tls: {
    ca_file: string | undefined;
    cert_file: string | undefined;
    key_file: string | undefined;
    server_name: string | undefined;
    verify: boolean;
  };
}

export interface TargetConfig {
  endpoint: Endpoint;
  token_file: string | undefined;
}

export interface UpstreamConfig extends Declared {
  source: SourceConfig;
  /** How long new peers wait for more of them; undefined: they do not. */
  settle?: Settle;
}

/** A command that is run after each applied change. */
export interface OnChange {
  /** A program and its arguments. */
  command: string[];
  /** In ms. */
  timeout: number;
}

/** Which services become upstreams, and how. */
export interface DiscoverRule {
  /** A service must carry each of them. */
  tags: string[];
  /** Of its name: text in which `*` is any text, or `/regex/`. */
  service: string;
  /** Of the upstream, with `{service}` in it. */
  name: string;
  /** What each of the upstreams is, but for the service. */
  upstream: UpstreamConfig & { source: HealthConfig };
}

export interface Config {
  /**
   * The file that it was read from. Without one it is not whole: upstreams of the
   * owner may be missing from it, so none is removed.
   */
  file: string | undefined;
  consul: ConsulConfig;
  openresty: TargetConfig[];
  snapshot: string | undefined;
  owner: string;
  upstreams: ReadonlyMap<string, UpstreamConfig>;
  discover: readonly DiscoverRule[];
  on_change: OnChange | undefined;
  pid_file: string | undefined;
  log: { level: (typeof logLevels)[number]; format: 'json' | 'pretty' };
}

/** Of `max_connections`, those that blocking queries leave to reads that must not wait. */
export const spareConnections = 2;

/** What Consul takes on one connection that speaks HTTP/2; more are not used, whatever a server takes. */
export const streamsPerConnection = 250;

/** Of the streams of one connection, those for watches: some are kept free, as connections are. */
export function watchesOn(streams: number): number {
  return Math.max(1, streams - spareConnections);
}

/**
 * So many watches the connections of the budget carry at best. Over TLS, Consul
 * speaks HTTP/2; else doorbells carry what is too much for a connection each.
 */
function mostWatches({ endpoints, max_connections }: ConsulConfig): number {
  const isTls = endpoints.every(({ url }) => url.startsWith('https:'));
  return isTls ? max_connections * watchesOn(streamsPerConnection) : Number.POSITIVE_INFINITY;
}

/** How many upstreams may be followed: discovery has a query of its own. */
export function mostFollowed({ consul, discover }: Pick<Config, 'consul' | 'discover'>): number {
  return mostWatches(consul) - (discover.length > 0 ? 1 : 0);
}
