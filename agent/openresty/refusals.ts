import { backoff } from '../retry.ts';
import type { DocumentPatch } from '../table/parts.ts';
import type { Log } from '../telemetry/log.ts';
import type { AdminError } from './admin.ts';

interface Refusal {
  /** The change that was refused, as JSON. */
  change: string;
  failures: number;
  retryAt: number;
}

export interface Refusals {
  /** @returns whether this very change was refused and it is not yet time to try it again */
  holds(name: string, change: unknown): boolean;
  /** Takes the result of a push. */
  note(refused: ReadonlyMap<string, AdminError>, patch: DocumentPatch): void;
  clear(): void;
}

/** Remembers what one target would not have, so that it is not sent in a tight loop. */
export function createRefusals(target: string, log: Log): Refusals {
  const known = new Map<string, Refusal>();
  return {
    holds(name, change) {
      const refusal = known.get(name);
      if (refusal === undefined || Date.now() >= refusal.retryAt) return false;
      return refusal.change === JSON.stringify(change);
    },
    note(refused, patch) {
      for (const name of Object.keys(patch.upstreams)) {
        const error = refused.get(name);
        if (error === undefined) {
          known.delete(name);
          continue;
        }
        const failures = (known.get(name)?.failures ?? 0) + 1;
        known.set(name, {
          change: JSON.stringify(patch.upstreams[name]),
          failures,
          retryAt: Date.now() + 1000 + backoff(failures, 1000, 30_000),
        });
        log.error({ upstream: name, target, err: error }, `${name} was refused: ${error.message}`);
      }
    },
    clear: () => known.clear(),
  };
}
