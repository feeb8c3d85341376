import { type Config, declaredBy } from '../config/config.ts';
import { createConsulClient } from '../consul/api.ts';
import { type AdminClient, createAdminClient } from '../openresty/admin.ts';
import { describeHolder, identify } from '../openresty/lease.ts';
import { describe } from '../openresty/left-out.ts';
import { push } from '../openresty/push.ts';
import { saveSnapshot } from '../snapshot/file.ts';
import { fetchUpstream } from '../source/fetch.ts';
import { allNames, difference, ownDocument } from '../state/desired.ts';
import { type Document, entry } from '../state/document.ts';
import { isBelievable } from '../state/holds/empty.ts';
import type { DocumentPatch } from '../state/parts.ts';
import { createState, type State } from '../state/state.ts';
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
  const state = await readConsul(config, output, signal);
  let failed = false;
  let differs = false;
  for (const client of clients) {
    try {
      const result = await retry(
        () => syncTarget(client, config, state, dryRun, output, signal),
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
    const document = ownDocument(state, config.owner);
    await saveSnapshot(config.snapshot, { savedAt: new Date(), document });
  }
  if (failed) return 1;
  return dryRun && exitCode && differs ? 3 : 0;
}

/** Asks for every service once. */
async function readConsul(config: Config, output: Output, signal: AbortSignal): Promise<State> {
  const client = createConsulClient(config.consul);
  const consistency = config.consul.consistency ?? 'default';
  const state = createState(() => {});
  state.declare(declaredBy(config), true);
  try {
    await Promise.all(
      [...config.upstreams].map(async ([name, upstream]) => {
        const answer = await retry(
          () => fetchUpstream(client, upstream, consistency, signal),
          signal,
        );
        for (const line of answer.malformed) output.err(`${name}: left out: ${line}`);
        state.observe(name, answer, 0);
      }),
    );
  } finally {
    client.close();
  }
  for (const name of state.due(0)) state.believe(name, 0);
  return state;
}

async function syncTarget(
  client: AdminClient,
  config: Config,
  state: State,
  dryRun: boolean,
  output: Output,
  signal: AbortSignal,
): Promise<Result> {
  const mirror = await client.get(undefined, signal);
  if (mirror === undefined) return { faults: [], differs: false };
  const { document } = mirror;
  const faults = keepDoubtful(document, config, state);
  const { patch, foreign } = difference(document, allNames(document, state), state, config.owner);
  faults.push(...foreign.map((name) => `${client.name}: ${name} belongs to another owner`));
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
    const { changed, refused, leftOut } = await push(client, mirror, patch, signal);
    if (changed.length > 0) output.out(`${client.name}: changed ${changed.join(', ')}`);
    for (const { message } of refused.values()) faults.push(message);
    for (const [name, pieces] of leftOut) faults.push(describe(name, client.name, pieces));
  }
  return { faults, differs: patch !== undefined };
}

/** Peers of a target that Consul no longer shows, and that we do not believe to be gone. */
function keepDoubtful(document: Document, config: Config, state: State): string[] {
  const kept: string[] = [];
  for (const name of state.names()) {
    const upstream = entry(document.upstreams, name);
    if (state.get(name)?.held === undefined || upstream?.owner !== config.owner) continue;
    state.remember(name, upstream.peers);
    const count = Object.keys(upstream.peers).length;
    if (count > 0) kept.push(`${name} keeps its ${count} peers`);
  }
  if (kept.length === 0) return [];
  const why = isBelievable(state.overview())
    ? 'hold_empty: 0 would remove them'
    : 'nor does it show one of any service';
  return [`${kept.join(', ')}, though Consul shows no instance: ${why}`];
}

function printPatch(target: string, patch: DocumentPatch | undefined, output: Output): void {
  // On stderr, so that stdout is JSON that can be sent as it is.
  output.err(`${target}: ${patch === undefined ? 'nothing to change' : 'would be sent:'}`);
  output.out(JSON.stringify(patch ?? {}, null, 2));
}
