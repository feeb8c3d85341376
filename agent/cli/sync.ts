import type { Config } from '../config/config.ts';
import { createConsulClient } from '../consul/api.ts';
import { type AdminClient, createAdminClient } from '../openresty/admin.ts';
import { describeHolder, identify } from '../openresty/lease.ts';
import { push } from '../openresty/push.ts';
import { saveSnapshot } from '../snapshot/file.ts';
import { fetchUpstream } from '../source/fetch.ts';
import { desired, ownDocument, wantedOf } from '../state/desired.ts';
import { type Document, entry } from '../state/document.ts';
import { type DocumentPatch, diffDocuments } from '../state/parts.ts';
import {
  answered,
  dueToEmpty,
  empty,
  isBelievable,
  newTracking,
  remember,
  type Tracking,
  track,
} from '../state/tracking.ts';
import { reason } from '../telemetry/log.ts';
import type { Output } from './output.ts';
import { retry } from './retry.ts';

export interface SyncOptions {
  /** Print the merge patches and change nothing. */
  dryRun: boolean;
  /** With `dryRun`: 3 when there is a difference. */
  exitCode: boolean;
  /** For the whole, in seconds. */
  timeout: number;
}

interface Result {
  /** What is wrong, one line each. */
  faults: string[];
  differs: boolean;
}

/**
 * Brings every target to what Consul says now. There is no time to hold the
 * peers of a service that has no instance: they stay, which is a failure,
 * unless its `hold_empty` is 0.
 *
 * @returns the exit code: 0 done, 1 failed, 3 there is a difference
 * @throws Error when Consul did not answer in full: then nothing has changed
 */
export async function sync(config: Config, options: SyncOptions, output: Output): Promise<number> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), options.timeout * 1000);
  try {
    return await syncAll(config, options, output, abort.signal);
  } catch (error) {
    if (abort.signal.aborted) throw new Error(`not done within ${options.timeout} s`);
    throw error;
  } finally {
    clearTimeout(timer);
  }
}

async function syncAll(
  config: Config,
  { dryRun, exitCode }: SyncOptions,
  output: Output,
  signal: AbortSignal,
): Promise<number> {
  // Before anything is changed: a token file may be missing.
  const clients = config.openresty.map(createAdminClient);
  const tracking = await readConsul(config, output, signal);
  let failed = false;
  let differs = false;
  for (const client of clients) {
    try {
      const result = await retry(
        () => syncTarget(client, config, tracking, dryRun, output, signal),
        signal,
      );
      for (const line of result.faults) output.err(`reloadless: ${line}`);
      failed ||= result.faults.length > 0;
      differs ||= result.differs;
    } catch (error) {
      signal.throwIfAborted();
      output.err(`reloadless: ${reason(error)}`);
      failed = true;
    } finally {
      client.close();
    }
  }
  if (config.snapshot !== undefined && !dryRun) {
    const document = ownDocument(wantedOf(config.upstreams, tracking), config.owner);
    await saveSnapshot(config.snapshot, { savedAt: new Date(), document });
  }
  if (failed) return 1;
  return dryRun && exitCode && differs ? 3 : 0;
}

/** Asks for every service once. */
async function readConsul(config: Config, output: Output, signal: AbortSignal): Promise<Tracking> {
  const client = createConsulClient(config.consul);
  const consistency = config.consul.consistency ?? 'default';
  const tracking = newTracking();
  track(tracking, config.upstreams.keys());
  try {
    await Promise.all(
      [...config.upstreams].map(async ([name, upstream]) => {
        const answer = await retry(
          () => fetchUpstream(client, upstream, consistency, signal),
          signal,
        );
        for (const line of answer.malformed) output.err(`${name}: left out: ${line}`);
        answered(tracking, name, answer.instances, answer.peers, 0);
      }),
    );
  } finally {
    client.close();
  }
  const hold = (name: string) => config.upstreams.get(name)?.hold_empty ?? 0;
  for (const name of dueToEmpty(tracking, hold, 0)) empty(tracking, name);
  return tracking;
}

async function syncTarget(
  client: AdminClient,
  config: Config,
  tracking: Tracking,
  dryRun: boolean,
  output: Output,
  signal: AbortSignal,
): Promise<Result> {
  const mirror = await client.get(undefined, signal);
  if (mirror === undefined) return { faults: [], differs: false };
  const faults = keepDoubtful(mirror.document, config, tracking);
  const wanted = wantedOf(config.upstreams, tracking);
  const want = desired(mirror.document, wanted, config.owner);
  faults.push(...want.foreign.map((name) => `${client.name}: ${name} belongs to another owner`));
  const patch = diffDocuments(mirror.document, want.document);
  if (dryRun) {
    printPatch(client.name, patch, output);
  } else if (patch === undefined) {
    output.out(`${client.name}: nothing to change`);
  } else {
    const holder = await client.holder(config.owner, signal);
    if (holder !== undefined && holder.id !== identify(config).identity.id) {
      faults.push(`${client.name}: ${describeHolder(config.owner, holder)}; nothing was changed`);
      return { faults, differs: true };
    }
    const { refused } = await push(client, mirror, patch, signal);
    const names = Object.keys(patch.upstreams).filter((name) => !refused.has(name));
    if (names.length > 0) output.out(`${client.name}: changed ${names.join(', ')}`);
    for (const { message } of refused.values()) faults.push(message);
  }
  return { faults, differs: patch !== undefined };
}

/** Peers of a target that Consul no longer shows, and that we do not believe to be gone. */
function keepDoubtful(document: Document, config: Config, tracking: Tracking): string[] {
  const kept: string[] = [];
  for (const [name, { emptySince }] of tracking.upstreams) {
    const upstream = entry(document.upstreams, name);
    if (emptySince === undefined || upstream?.owner !== config.owner) continue;
    remember(tracking, name, upstream.peers);
    const count = Object.keys(upstream.peers).length;
    if (count > 0) kept.push(`${name} keeps its ${count} peers`);
  }
  if (kept.length === 0) return [];
  const why = isBelievable(tracking)
    ? 'hold_empty: 0 would remove them'
    : 'nor does it show one of any service';
  return [`${kept.join(', ')}, though Consul shows no instance: ${why}`];
}

function printPatch(target: string, patch: DocumentPatch | undefined, output: Output): void {
  // On stderr, so that stdout is JSON that can be sent as it is.
  output.err(`${target}: ${patch === undefined ? 'nothing to change' : 'would be sent:'}`);
  output.out(JSON.stringify(patch ?? {}, null, 2));
}
