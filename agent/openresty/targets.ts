import type { TargetConfig } from '../config/config.ts';
import { createAdminClient } from './admin.ts';
import { startGenerations } from './generations.ts';
import type { Pusher, PusherOptions } from './target.ts';

export interface Targets {
  /**
   * Reads the tokens of the targets that stay and makes ready those that are new.
   *
   * @returns a function that makes the change, and cannot fail
   * @throws Error when a token file cannot be read; then nothing has changed
   */
  prepare(configs: TargetConfig[]): () => void;
  /** What is wanted of an upstream is another now; without a name: perhaps of each. */
  changed(name?: string): void;
  /** Agents of another configuration have all of them. */
  areOfOthers(): boolean;
  /** Leaves the targets as they are, and gives our leases back. */
  stop(): Promise<void>;
}

/** A pusher for each target. The options are those of `startGenerations`. */
export function createTargets(options: Omit<PusherOptions, 'client'>): Targets {
  let pushers = new Map<string, Pusher>();

  return {
    prepare(configs) {
      const clients = new Map(
        configs.map((config) => {
          const key = JSON.stringify(config);
          if (!pushers.has(key)) return [key, createAdminClient(config)];
          pushers.get(key)?.readToken();
          return [key, undefined];
        }),
      );
      return () => {
        const next = new Map<string, Pusher>();
        for (const [key, client] of clients) {
          const pusher =
            client === undefined ? pushers.get(key) : startGenerations({ ...options, client });
          if (pusher !== undefined) next.set(key, pusher);
        }
        for (const [key, pusher] of pushers) if (!next.has(key)) pusher.stop();
        pushers = next;
      };
    },
    changed(name) {
      for (const pusher of pushers.values()) pusher.changed(name);
    },
    areOfOthers: () => [...pushers.values()].every(({ isWaiting }) => isWaiting),
    async stop() {
      await Promise.all([...pushers.values()].map((pusher) => pusher.stop()));
    },
  };
}
