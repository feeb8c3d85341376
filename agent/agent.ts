import { copyFileSync } from 'node:fs';
import type { Config } from './config/config.ts';
import { createWatches } from './consul/watches.ts';
import { identify } from './openresty/lease.ts';
import { createTargets } from './openresty/targets.ts';
import { loadSnapshot } from './snapshot/file.ts';
import { createSnapshotWriter, type SnapshotWriter } from './snapshot/writer.ts';
import { desired, ownDocument, wantedOf } from './table/desired.ts';
import { type Document, entry } from './table/document.ts';
import { newTracking, remember, track } from './table/tracking.ts';
import { type Log, reason } from './telemetry/log.ts';

export interface Agent {
  /**
   * Goes on with another configuration; watches and targets that stay the same
   * keep running.
   *
   * @throws Error when a token or a TLS file cannot be read; then nothing has changed
   */
  reload(config: Config): void;
  /** Leaves OpenResty as it is. */
  stop(): Promise<void>;
}

/** Where the snapshot is if nobody says otherwise. */
const defaultSnapshot = '/var/lib/reloadless/upstreams.snapshot';

/**
 * Keeps every target at what Consul says, until stopped. This is where the
 * parts meet: watches change the tracked peers, and a change wakes the targets
 * and the snapshot.
 *
 * @throws Error when a token or a TLS file cannot be read
 */
export function startAgent(first: Config, log: Log): Agent {
  let config = first;
  let who = identify(first);
  const tracking = newTracking();
  let snapshot: SnapshotWriter | undefined;

  const wanted = () => wantedOf(config.upstreams, tracking);

  function changed(): void {
    targets.changed();
    // The snapshot is of what nginx has, and that is the other agent's then.
    if (!targets.areOfOthers()) snapshot?.changed();
  }

  /** Peers that we do not know from Consul: what the target serves is newer than our snapshot. */
  function learnt(document: Document): void {
    for (const name of config.upstreams.keys()) {
      const upstream = entry(document.upstreams, name);
      if (upstream?.owner === config.owner) remember(tracking, name, upstream.peers);
    }
  }

  function openSnapshot(path: string): SnapshotWriter {
    return createSnapshotWriter(
      path,
      () => ownDocument(wanted(), config.owner),
      (error) => {
        if (error === undefined) log.debug(`snapshot ${path} written`);
        else log.error({ err: error }, `snapshot ${path}: ${reason(error)}`);
      },
    );
  }

  const watches = createWatches({ tracking, config: () => config, changed, log });
  const targets = createTargets({
    desired: (current) => desired(current, wanted(), config.owner),
    learnt,
    who: () => who,
    gained: changed,
    log,
  });

  function reload(next: Config): void {
    const applyWatches = watches.prepare(next.consul);
    const applyTargets = targets.prepare(next.openresty);
    const path = next.snapshot ?? defaultSnapshot;
    const isOtherSnapshot = snapshot === undefined || path !== (config.snapshot ?? defaultSnapshot);
    config = next;
    who = identify(next);
    log.level = next.log.level;
    track(tracking, next.upstreams.keys());
    if (isOtherSnapshot) {
      snapshot?.stop();
      restore(path);
      snapshot = openSnapshot(path);
    }
    applyWatches();
    applyTargets();
    changed();
  }

  function restore(path: string): void {
    try {
      const saved = loadSnapshot(path);
      if (saved === undefined) return;
      for (const [name, { peers }] of Object.entries(saved.document.upstreams)) {
        remember(tracking, name, peers);
      }
      log.info(`snapshot of ${saved.savedAt.toISOString()} read from ${path}`);
    } catch (error) {
      log.error({ err: error }, `snapshot ${path} is not used: ${reason(error)}`);
      keepForPerson(path);
    }
  }

  /** The next change writes a new snapshot over the damaged one. */
  function keepForPerson(path: string): void {
    try {
      copyFileSync(path, `${path}.damaged`);
    } catch (error) {
      log.error({ err: error }, `${path}.damaged: ${reason(error)}`);
    }
  }

  reload(first);
  return {
    reload,
    async stop() {
      watches.stop();
      await Promise.all([targets.stop(), snapshot?.stop()]);
    },
  };
}
