import type { TargetConfig } from '../config/config.ts';
import { createAdminClient } from './admin.ts';
import { startGenerations } from './generations.ts';
import type { Target, TargetOptions } from './target.ts';

export interface Targets {
  /**
   * Reads the tokens of the targets that stay and makes ready those that are new.
   *
   * @returns a function that makes the change, and cannot fail
   * @throws Error when a token file cannot be read; then nothing has changed
   */
  prepare(configs: TargetConfig[]): () => void;
  /** What is desired of an upstream is another now; without a name: perhaps of each. */
  changed(name?: string): void;
  /** Agents of another configuration have all that answer. */
  areOfOthers(): boolean;
  /** Leaves the targets as they are, and gives our leases back. */
  stop(): Promise<void>;
}

/** One for each that is configured. The options are those of `startGenerations`. */
export function createTargets(options: Omit<TargetOptions, 'client'>): Targets {
  let targets = new Map<string, Target>();

  return {
    prepare(configs) {
      const clients = new Map(
        configs.map((config) => {
          const key = JSON.stringify(config);
          if (!targets.has(key)) return [key, createAdminClient(config)];
          targets.get(key)?.readToken();
          return [key, undefined];
        }),
      );
      return () => {
        const next = new Map<string, Target>();
        for (const [key, client] of clients) {
          const target =
            client === undefined ? targets.get(key) : startGenerations({ ...options, client });
          if (target !== undefined) next.set(key, target);
        }
        for (const [key, target] of targets) if (!next.has(key)) target.stop();
        targets = next;
      };
    },
    changed(name) {
      for (const target of targets.values()) target.changed(name);
    },
    areOfOthers() {
      const all = [...targets.values()];
      const isOfOthers = ({ isWaiting, isFailing }: Target) => isWaiting || isFailing;
      return all.some(({ isWaiting }) => isWaiting) && all.every(isOfOthers);
    },
    async stop() {
      await Promise.all([...targets.values()].map((target) => target.stop()));
    },
  };
}
