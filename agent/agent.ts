import type { Config } from './config/config.ts';
import { identify } from './openresty/lease.ts';
import { createTargets } from './openresty/targets.ts';
import { readSnapshotFile, replaceFile } from './snapshot/file.ts';
import { decodeSnapshot } from './snapshot/format.ts';
import { createSnapshotWriter, type SnapshotWriter } from './snapshot/writer.ts';
import { createWatches } from './source/watches.ts';
import { desired, ownDocument, wantedOf } from './state/desired.ts';
import { type Document, entry } from './state/document.ts';
import { newTracking, remember, track } from './state/tracking.ts';
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
    return createSnapshotWriter(path, () => ownDocument(wanted(), config.owner), {
      written(failures) {
        if (failures === 0) log.debug(`snapshot ${path} written`);
        else log.info(`snapshot ${path} can be written again`);
      },
      failed(error, failures) {
        const level = failures === 1 ? 'error' : 'debug';
        const message = `snapshot ${path} is not written, and tried again: ${reason(error)}`;
        log[level]({ err: error, failures }, message);
      },
    });
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
    let bytes: Buffer | undefined;
    try {
      bytes = readSnapshotFile(path);
      if (bytes === undefined) return;
      const { savedAt, document, leftOut } = decodeSnapshot(bytes);
      for (const [name, { peers }] of Object.entries(document.upstreams)) {
        remember(tracking, name, peers);
      }
      log.info(`snapshot of ${savedAt.toISOString()} read from ${path}`);
      if (leftOut.length > 0) {
        const message = `snapshot ${path}: ${leftOut.length} left out, the first: ${leftOut[0]}`;
        log.error({ leftOut: leftOut.slice(0, 10) }, message);
      }
    } catch (error) {
      log.error({ err: error }, `snapshot ${path} is not used: ${reason(error)}`);
      if (bytes !== undefined) keepForPerson(`${path}.damaged`, bytes);
    }
  }

  /** The next change writes a new snapshot over the damaged one. */
  function keepForPerson(path: string, bytes: Buffer): void {
    replaceFile(path, bytes).catch((error) => {
      log.error({ err: error }, `${path}: ${reason(error)}`);
    });
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
