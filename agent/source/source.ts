import type { z } from 'zod';
import type { Consistency } from '../config/config.ts';
import type { ConsulClient } from '../consul/api.ts';
import type { ConsulError } from '../consul/error.ts';
import type { Waits } from '../consul/wait.ts';
import type { Peers, Settings } from '../state/document.ts';
import type { Observation } from '../state/hold.ts';
import type { FaultLog } from '../telemetry/bounded.ts';
import * as kinds from './kinds.ts';

/** Where the peers of an upstream come from: a kind of source, and what it asks for. It is JSON. */
export interface SourceConfig {
  readonly kind: keyof typeof kinds;
}

export interface SourceOptions<Config = SourceConfig> {
  /** The name of the upstream. */
  upstream: string;
  config: Config;
  client: ConsulClient;
  consistency: Consistency;
  /** How long Consul may hold a query now. */
  wait: () => Waits;
  /** For what a person should know, and nothing hangs on. */
  log: FaultLog;
  /** What the upstream says of itself, beside its source. */
  settings: () => Settings;
  /** The last peers that are known, whoever said so. */
  remembered: () => Peers;
}

/** Hears what there is to say of an upstream. */
interface Observer {
  /** @returns whether anything is other than before */
  observed(observation: Observation): boolean;
  /** It has been answered, and nothing is other than before. */
  unchanged?(): void;
  /** Nothing can be said now. It is tried again. */
  failed(error: ConsulError): void;
}

/** Says who the peers of one upstream are. */
export interface Source {
  /**
   * Observes until it is stopped. It never throws: a fault of ours is said in
   * the log, and what is at fault is tried again.
   */
  follow(observer: Observer): void;
  /** Observes once. @throws ConsulError when nothing can be said */
  read(signal: AbortSignal): Promise<Observation>;
  /**
   * Observes once, so that what is held can be believed: none of it may come
   * from a server that is behind, or from a lack of rights.
   *
   * @throws ConsulError when nothing can be said for sure
   */
  confirm(signal: AbortSignal): Promise<Observation>;
  /** What there is, for people. @throws ConsulError when it cannot be asked for */
  summary(signal: AbortSignal): Promise<string>;
  stop(): void;
}

/** In a file of its own, or a folder, and listed in `kinds.ts`. */
export interface SourceKind<Config extends SourceConfig = SourceConfig> {
  /**
   * What an upstream may say of it in reloadless.yml, beside the keys of every
   * upstream. A key that several kinds have means the same in each.
   */
  readonly keys: z.ZodRawShape;
  /** @returns what does not go together of what an upstream says; undefined: all does */
  fault?(written: object): { path: string[]; message: string } | undefined;
  /** @param written what an upstream says, as `keys` has taken it */
  configure(upstream: string, written: object): Config;
  /** The settings of an upstream that says nothing else. */
  defaults?(config: Config): Settings;
  open(options: SourceOptions<Config>): Source;
  /** What it asks for, for people. */
  describe(config: Config): string;
}

export const sourceKinds: Readonly<Record<SourceConfig['kind'], SourceKind>> = { ...kinds };

/** @returns the source of an upstream; it asks for nothing as yet */
export function openSource(options: SourceOptions): Source {
  return sourceKinds[options.config.kind].open(options);
}

/** What the source of an upstream asks for, for people. */
export function describeSource(config: SourceConfig): string {
  return sourceKinds[config.kind].describe(config);
}
