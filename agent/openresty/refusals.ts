import { type DocumentPatch, removals } from '../state/parts.ts';
import type { Log } from '../telemetry/log.ts';
import { backoff } from '../util/backoff.ts';
import type { Refusal } from './push.ts';

interface Known {
  /** What was refused, as JSON. */
  change: string;
  /** What the log has said of it. */
  said: string;
  failures: number;
  retryAt: number;
}

export interface Refusals {
  /**
   * What is to be sent now.
   *
   * @param patch the whole difference; undefined when there is none
   * @returns it without what was refused and is not due yet; undefined when nothing is left
   */
  due(patch: DocumentPatch | undefined): DocumentPatch | undefined;
  /** Takes the result of a push. */
  note(refused: ReadonlyMap<string, Refusal>, patch: DocumentPatch): void;
  /** The upstreams of which something was refused. */
  names(): Iterable<string>;
  clear(): void;
}

/** Remembers what one target would not have, so that it is not sent in a tight loop. */
export function createRefusals(target: string, log: Log): Refusals {
  const known = new Map<string, Known>();

  function isDue(name: string, change: unknown): boolean {
    const refusal = known.get(name);
    if (refusal === undefined || Date.now() >= refusal.retryAt) return true;
    return refusal.change !== JSON.stringify(change);
  }

  function settle(name: string): void {
    if (known.delete(name))
      log.info({ upstream: name, target }, `${target}: ${name} is whole again`);
  }

  return {
    due(patch) {
      for (const name of known.keys()) {
        if (!Object.hasOwn(patch?.upstreams ?? {}, name)) settle(name);
      }
      const upstreams = Object.entries(patch?.upstreams ?? {}).filter((item) => isDue(...item));
      return upstreams.length === 0 ? undefined : { upstreams: Object.fromEntries(upstreams) };
    },
    note(refused, patch) {
      const now = Date.now();
      let hasRoom = false;
      for (const [name, change] of Object.entries(patch.upstreams)) {
        const refusal = refused.get(name);
        const left = refusal === undefined ? {} : { [name]: refusal.rest };
        hasRoom ||= removals({ upstreams: left }) < removals({ upstreams: { [name]: change } });
        if (refusal === undefined) {
          settle(name);
          continue;
        }
        const before = known.get(name);
        const failures = (before?.failures ?? 0) + 1;
        const { error, rest, message } = refusal;
        const missing = Object.keys(rest?.peers ?? {}).length;
        // The message counts bytes, which are others each time.
        const said = error.status === 507 ? `507 ${missing}` : message;
        const line = { upstream: name, target, err: error };
        if (said === before?.said) log.debug(line, message);
        else log.error(line, message);
        const retryAt = now + 1000 + backoff(failures, 1000, 30_000);
        known.set(name, { change: JSON.stringify(rest), said, failures, retryAt });
      }
      if (!hasRoom) return;
      for (const refusal of known.values()) refusal.retryAt = Math.min(refusal.retryAt, now + 1000);
    },
    names: () => known.keys(),
    clear: () => known.clear(),
  };
}
