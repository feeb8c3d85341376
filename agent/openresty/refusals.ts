import { isEqual, type Json } from '../state/merge-patch.ts';
import { type DocumentPatch, removals, type UpstreamPatch } from '../state/parts.ts';
import type { Log } from '../telemetry/log.ts';
import { backoff } from '../util/backoff.ts';
import { describe, type LeftOut, within, without } from './left-out.ts';
import { isFull, type Pushed, type Refusal } from './push.ts';

interface Known {
  /** What was refused as a whole; undefined: nothing. */
  change: UpstreamPatch | null | undefined;
  /** What the log has said of that. */
  said: string | undefined;
  isFull: boolean;
  /** What was refused alone. */
  leftOut: LeftOut;
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
  note(result: Pick<Pushed, 'refused' | 'leftOut'>, patch: DocumentPatch): void;
  /** The upstreams of which something was refused. */
  names(): Iterable<string>;
  clear(): void;
}

/** Remembers what one target would not have, so that it is not sent in a tight loop. */
export function createRefusals(target: string, log: Log): Refusals {
  const known = new Map<string, Known>();

  /** @returns what of an upstream's change is to be sent */
  function dueOf(name: string, change: UpstreamPatch | null): UpstreamPatch | null | undefined {
    const refusal = known.get(name);
    if (refusal === undefined) return change;
    refusal.leftOut = within(change, refusal.leftOut);
    if (Date.now() >= refusal.retryAt) return change;
    const left = without(change, refusal.leftOut);
    return isEqual(refusal.change as Json, left as Json) ? undefined : left;
  }

  function settle(name: string): void {
    if (known.delete(name))
      log.info({ upstream: name, target }, `${target}: ${name} is whole again`);
  }

  function sayRefused(name: string, refusal: Refusal | undefined, before: Known | undefined) {
    if (refusal === undefined) return undefined;
    const { error, rest, message } = refusal;
    const missing = Object.keys(rest?.peers ?? {}).length;
    // The message counts bytes, which are others each time.
    const said = isFull(error) ? `${error.code} ${missing}` : message;
    const line = { upstream: name, target, err: error };
    if (said === before?.said) log.debug(line, message);
    else log.error(line, message);
    return said;
  }

  /** Says what is new of it. */
  function sayLeftOut(name: string, leftOut: LeftOut, before: Known | undefined): void {
    const fresh = [...leftOut].filter(
      ([key, { why }]) => before === undefined || before.leftOut.get(key)?.why !== why,
    );
    if (fresh.length === 0) return;
    log.error({ upstream: name, target }, describe(name, target, new Map(fresh)));
  }

  return {
    due(patch) {
      for (const name of known.keys()) {
        if (!Object.hasOwn(patch?.upstreams ?? {}, name)) settle(name);
      }
      const upstreams = Object.entries(patch?.upstreams ?? {}).flatMap(([name, change]) => {
        const left = dueOf(name, change);
        return left === undefined ? [] : [[name, left] as const];
      });
      return upstreams.length === 0 ? undefined : { upstreams: Object.fromEntries(upstreams) };
    },
    note({ refused, leftOut }, patch) {
      const now = Date.now();
      let hasRoom = false;
      for (const [name, change] of Object.entries(patch.upstreams)) {
        const refusal = refused.get(name);
        const left = refusal === undefined ? {} : { [name]: refusal.rest };
        hasRoom ||= removals({ upstreams: left }) < removals({ upstreams: { [name]: change } });
        const before = known.get(name);
        // What was not sent is still out; what was sent, if it was refused again.
        const out = new Map(before?.leftOut);
        for (const key of within(change, out).keys()) out.delete(key);
        for (const [key, piece] of leftOut.get(name) ?? []) out.set(key, piece);
        if (refusal === undefined && out.size === 0) {
          settle(name);
          continue;
        }
        const said = sayRefused(name, refusal, before);
        sayLeftOut(name, out, before);
        // New ones do not put off the others.
        const isNext = before === undefined || now >= before.retryAt;
        const failures = (before?.failures ?? 0) + (isNext ? 1 : 0);
        known.set(name, {
          change: refusal?.rest,
          said,
          isFull: refusal !== undefined && isFull(refusal.error),
          leftOut: out,
          failures,
          retryAt: isNext ? now + 1000 + backoff(failures, 1000, 30_000) : before.retryAt,
        });
      }
      if (!hasRoom) return;
      for (const refusal of known.values()) {
        if (refusal.isFull) refusal.retryAt = Math.min(refusal.retryAt, now + 1000);
      }
    },
    names: () => known.keys(),
    clear: () => known.clear(),
  };
}
