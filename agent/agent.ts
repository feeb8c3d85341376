import type { Config } from './config/config.ts';
import { identify } from './openresty/lease.ts';
import { createTargets } from './openresty/targets.ts';
import { readSnapshotFile, replaceFile } from './snapshot/file.ts';
import { decodeSnapshot } from './snapshot/format.ts';
import { guardSnapshot } from './snapshot/guard.ts';
import { createSnapshotWriter, type SnapshotWriter } from './snapshot/writer.ts';
import { createUpstreamSet } from './source/discover/set.ts';
import { createSources } from './source/sources.ts';
import { ownDocument } from './state/desired.ts';
import type { Document } from './state/document.ts';
import { type Change, createState } from './state/state.ts';
import { logChange } from './telemetry/changes.ts';
import { type Log, reason } from './telemetry/log.ts';
import { createChangeCommand } from './telemetry/on-change.ts';
import { createQuiet } from './util/quiet.ts';

export interface Agent {
  /**
   * Goes on with another configuration; sources and targets that stay the same
   * keep running.
   *
   * @throws Error when a token or a TLS file cannot be read; then nothing has changed
   */
  reload(config: Config): void;
  /** Leaves OpenResty as it is. */
  stop(): Promise<void>;
}

/** Where the snapshot is if nobody says otherwise: that of nginx, which is to hold all upstreams. */
const defaultSnapshot = '/var/lib/reloadless/upstreams.snapshot';

function snapshotOf({ snapshot, file }: Config): string | undefined {
  return snapshot ?? (file === undefined ? undefined : defaultSnapshot);
}

/**
 * Keeps every target at what Consul says, until stopped. This is where the
 * parts meet: sources tell the state what they see, and a change of the state
 * wakes the targets and the snapshot.
 *
 * @throws Error when a token or a TLS file cannot be read
 */
export function startAgent(first: Config, log: Log): Agent {
  let config = first;
  let who = identify(first);
  const state = createState(happened);
  let snapshot: Pick<SnapshotWriter, 'changed' | 'stop'> | undefined;

  function happened(change: Change): void {
    logChange(log, change);
    // A held observation changes nothing as yet.
    if (change.kind !== 'held') {
      const settle = onlyAdds(change) ? set.upstreams.get(change.upstream)?.settle : undefined;
      if (settle === undefined) quiet.atOnce(change.upstream);
      else quiet.soon(change.upstream, settle);
    }
    set.happened(change);
  }

  /** Whether it may wait: nothing leaves or is changed, and there were peers before. */
  function onlyAdds(change: Change): boolean {
    if (change.kind !== 'observed' || change.changes === undefined) return false;
    const { added, removed, changed } = change.changes;
    const peers = Object.keys(state.get(change.upstream)?.peers ?? {}).length;
    return removed.length === 0 && changed.length === 0 && peers > added.length;
  }

  /** @param name of the upstream of which something else is desired; undefined: of any */
  function changed(name?: string): void {
    targets.changed(name);
    // The snapshot is of what nginx has, and that is the other agent's then.
    if (!targets.areOfOthers()) snapshot?.changed();
  }

  /** Peers that we do not know from Consul: what the target serves is newer than our snapshot. */
  function learnt(document: Document): void {
    const all = Object.entries(document.upstreams);
    set.remember(all.filter(([, { owner }]) => owner === config.owner));
  }

  function openSnapshot(path: string): typeof snapshot {
    const document = () => ownDocument(state, config.owner);
    const writer = createSnapshotWriter(path, document, {
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
    const unguard = guardSnapshot({
      path,
      // While we wait for another agent, the file is that one's.
      mark: () => (targets.areOfOthers() ? undefined : writer.mark),
      document,
      lost() {
        log.error(
          `snapshot ${path} was changed by somebody else and is written again; ` +
            'another agent or command must have a file of its own',
        );
        writer.changed();
      },
    });
    return {
      changed: writer.changed,
      stop() {
        unguard();
        return writer.stop();
      },
    };
  }

  const quiet = createQuiet(changed);
  const command = createChangeCommand(() => config.on_change, log);
  const set = createUpstreamSet({
    state,
    log,
    changed(isNew) {
      sources.reconcile();
      // What only a target has may be removed from now on.
      if (isNew) changed();
    },
  });
  const sources = createSources({
    state,
    config: () => config,
    upstreams: () => set.upstreams,
    catalogue: set.answered,
    log,
  });
  const targets = createTargets({
    state,
    learnt,
    who: () => who,
    gained: () => changed(),
    applied: command.applied,
    log,
  });

  function reload(next: Config): void {
    const applySources = sources.prepare(next.consul);
    const applyTargets = targets.prepare(next.openresty);
    const path = snapshotOf(next);
    const isOtherSnapshot = snapshot === undefined || path !== snapshotOf(config);
    config = next;
    who = identify(next);
    log.level = next.log.level;
    set.configure(next);
    if (isOtherSnapshot && path !== undefined) {
      snapshot?.stop();
      restore(path);
      snapshot = openSnapshot(path);
    }
    applySources();
    applyTargets();
    changed();
  }

  function restore(path: string): void {
    let bytes: Buffer | undefined;
    try {
      bytes = readSnapshotFile(path);
      if (bytes === undefined) return;
      const { savedAt, document, leftOut } = decodeSnapshot(bytes);
      set.remember(Object.entries(document.upstreams));
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
      sources.stop();
      quiet.stop();
      command.stop();
      await Promise.all([targets.stop(), snapshot?.stop()]);
    },
  };
}
