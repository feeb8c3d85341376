import type { Config, UpstreamConfig } from '../config/config.ts';
import { ConfigError } from '../config/error.ts';
import { type Flags, loadConfig } from '../config/resolve.ts';
import { type ConsulClient, createConsulClient } from '../consul/api.ts';
import { type AdminClient, createAdminClient } from '../openresty/admin.ts';
import { describeHolder, identify } from '../openresty/lease.ts';
import { describe } from '../openresty/left-out.ts';
import { push } from '../openresty/push.ts';
import { loadSnapshot, saveSnapshot } from '../snapshot/file.ts';
import {
  couldHaveFound,
  createFinder,
  type Finder,
  findUpstreams,
  upstreamOf,
} from '../source/discover/rules.ts';
import { subject } from '../source/discover/set.ts';
import { describeSource, openSource } from '../source/source.ts';
import { allNames, difference, ownDocument } from '../state/desired.ts';
import { type Document, entry } from '../state/document.ts';
import type { HoldKind } from '../state/hold.ts';
import type { DocumentPatch } from '../state/parts.ts';
import { createState, type State } from '../state/state.ts';
import { reason } from '../telemetry/log.ts';
import { CodedError } from '../util/coded-error.ts';
import { type Output, outputLog } from './output.ts';
import { retry } from './retry.ts';

export interface SyncOptions {
  /** Remove what carries our owner and is not configured. */
  prune: boolean;
  /** A source without an instance is no failure. */
  allowEmpty: boolean;
  /** Print the merge patches and change nothing. */
  dryRun: boolean;
  /** With `dryRun`: 3 when there is a difference. */
  exitCode: boolean;
  /** For the whole, in seconds. */
  timeout: number;
}

/** What Consul has said so far. */
interface View {
  config: Config;
  options: SyncOptions;
  consul: ConsulClient;
  finders: Finder[];
  /** Those of the configuration, and those that were found and have an instance. */
  upstreams: Map<string, UpstreamConfig>;
  state: State;
  /** Settles when the sources that a target has asked for last are read. */
  reading: Promise<void>;
}

interface Result {
  /** What is wrong, one line each. */
  faults: string[];
  differs: boolean;
  /** What the target had; undefined: an agent of another configuration has the target. */
  found: Document | undefined;
}

/**
 * Brings every target to what Consul says now. There is no time to hold the
 * peers of a service that has no instance: they stay, which is a failure,
 * unless its `hold_empty` is 0.
 *
 * @returns the exit code: 0 done, 1 failed, 3 there is a difference
 * @throws ConfigError
 * @throws Error when Consul did not answer in full: then nothing has changed
 */
export async function sync(flags: Flags, options: SyncOptions, output: Output): Promise<number> {
  const config = loadConfig(flags, process.env);
  if (options.prune && config.file === undefined) {
    throw new ConfigError('--prune needs -c FILE: who gives --service may not have named all');
  }
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
  options: SyncOptions,
  output: Output,
  signal: AbortSignal,
): Promise<number> {
  // Before anything is changed: a token file may be missing.
  const clients = config.openresty.map(createAdminClient);
  const consul = createConsulClient(config.consul);
  const view: View = {
    ...{ config, options, consul },
    finders: config.discover.map(createFinder),
    upstreams: new Map(config.upstreams),
    state: createState(() => {}),
    reading: Promise.resolve(),
  };
  const { dryRun, exitCode } = options;
  try {
    await discover(view, output, signal);
    const empty = await readSources(view, [...view.upstreams.keys()], output, signal);
    for (const line of empty) output.err(`reloadless: ${line}`);
    let failed = empty.length > 0;
    let differs = false;
    const served: Document[] = [];
    let others = 0;
    // At once, so that none waits for one that does not answer; told in their order.
    const ends = clients.map((client) => syncOne(client, view, signal));
    for (const end of ends) {
      const { say, result } = await end;
      say(output);
      if (result === undefined) {
        failed = true;
        continue;
      }
      failed ||= result.faults.length > 0;
      differs ||= result.differs;
      if (result.found === undefined) others += 1;
      else served.push(result.found);
    }
    signal.throwIfAborted();
    // Where others have all targets that answer, the snapshot is theirs too.
    const isOfOthers = others > 0 && served.length === 0;
    if (config.snapshot !== undefined && !dryRun && !isOfOthers) {
      await writeSnapshot(config.snapshot, view.state, config.owner, served);
    }
    if (failed) return 1;
    return dryRun && exitCode && differs ? 3 : 0;
  } finally {
    consul.close();
  }
}

interface End {
  /** Writes what there is to say of it. */
  say: (output: Output) => void;
  /** undefined: it has failed. */
  result: Result | undefined;
}

/** Never throws: what goes wrong with one target is that one's. */
async function syncOne(client: AdminClient, view: View, signal: AbortSignal): Promise<End> {
  const lines: [keyof Output, string][] = [];
  const kept: Output = {
    out: (line) => lines.push(['out', line]),
    err: (line) => lines.push(['err', line]),
  };
  let result: Result | undefined;
  try {
    result = await retry(() => syncTarget(client, view, kept, signal), signal);
    for (const line of result.faults) kept.err(`reloadless: ${line}`);
  } catch (error) {
    if (!signal.aborted) kept.err(`reloadless: ${reason(error)}`);
  } finally {
    client.close();
  }
  const say = (output: Output) => {
    for (const [to, line] of lines) output[to](line);
  };
  return { say, result };
}

/** Asks for the catalogue once, if there are rules. */
async function discover(view: View, output: Output, signal: AbortSignal): Promise<void> {
  const { config, consul, finders, upstreams } = view;
  if (finders.length === 0) return;
  const { consistency = 'default' } = config.consul;
  const { catalogue } = await retry(() => consul.catalogue({ consistency }, signal), signal);
  const { matches, notes } = findUpstreams(finders, catalogue, config.upstreams);
  for (const note of notes) output.err(`reloadless: ${subject}: ${note}`);
  for (const [name, match] of matches) upstreams.set(name, upstreamOf(match));
}

/**
 * Asks sources once, and once more where an answer is in doubt. Of one without
 * an instance nothing is made or unmade, unless that is allowed; where it was
 * discovered, it is not there.
 *
 * @returns what is wrong, one line each
 */
async function readSources(
  { config, options, consul, upstreams, state }: View,
  names: string[],
  output: Output,
  signal: AbortSignal,
): Promise<string[]> {
  const { prune, allowEmpty } = options;
  const faults: string[] = [];
  state.declare(upstreams, prune);
  const sources = [...upstreams].flatMap(([name, { source, settings, isTransient = false }]) => {
    if (!names.includes(name)) return [];
    const { consistency = 'default' } = config.consul;
    const log = outputLog(output);
    const remembered = () => ({});
    const given = {
      upstream: name,
      config: source,
      consistency,
      wait: consul.waits,
      log,
      remembered,
    };
    const opened = openSource({ ...given, settings: () => settings, client: consul });
    return [{ name, isTransient, what: describeSource(source), source: opened }];
  });
  try {
    await Promise.all(
      sources.map(async ({ name, isTransient, what, source }) => {
        const mayBeEmpty = allowEmpty && !isTransient;
        let observation = await retry(() => source.read(signal), signal);
        if (observation.instances === 0 && !mayBeEmpty) {
          observation = await retry(() => source.confirm(signal), signal);
        }
        if (observation.instances > 0 || mayBeEmpty) {
          state.observe(name, observation, 0);
        } else if (isTransient) {
          upstreams.delete(name);
        } else {
          const why = await retry(() => source.summary(signal), signal);
          faults.push(`${name}: ${what}: ${why}; --allow-empty takes it for empty`);
        }
      }),
    );
    await Promise.all(
      sources.map(async ({ name, source }) => {
        const held = state.get(name)?.held;
        if (held === undefined) return;
        const observation = await retry(() => source.confirm(signal), signal);
        state.confirm(name, held, observation, 0);
      }),
    );
  } finally {
    for (const { source } of sources) source.stop();
  }
  state.declare(upstreams, prune);
  return faults;
}

/**
 * Before what a target has is removed, since the catalogue does not show it: asks
 * the source of each that a rule may have found.
 */
async function readOthers(
  view: View,
  document: Document,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const { config, finders, upstreams } = view;
  const others: string[] = [];
  for (const [name, { owner }] of Object.entries(document.upstreams)) {
    if (owner !== config.owner || upstreams.has(name)) continue;
    const match = couldHaveFound(finders, name);
    if (match === undefined) continue;
    upstreams.set(name, upstreamOf(match));
    others.push(name);
  }
  try {
    if (others.length > 0) await readSources(view, others, output, signal);
  } catch (error) {
    // So that they are asked again.
    for (const name of others) upstreams.delete(name);
    throw error;
  }
}

async function syncTarget(
  client: AdminClient,
  view: View,
  output: Output,
  signal: AbortSignal,
): Promise<Result> {
  const mirror = await client.get(undefined, signal);
  if (mirror === undefined) return { faults: [], differs: false, found: { upstreams: {} } };
  const { document } = mirror;
  const { config, options, state } = view;
  const { prune, dryRun } = options;
  if (prune) {
    // One after the other: what one is asking for, the next is to know.
    const read = () => readOthers(view, document, output, signal);
    view.reading = view.reading.then(read, read);
    await view.reading;
  }
  const faults = keepDoubtful(document, config, state);
  const { patch, foreign } = difference(document, allNames(document, state), state, config.owner);
  sayUnpruned(client.name, document, config, state, output);
  faults.push(...foreign.map((name) => `${client.name}: ${name} belongs to another owner`));
  if (dryRun) {
    printPatch(client.name, patch, output);
  } else if (patch === undefined) {
    output.out(`${client.name}: nothing to change`);
  } else {
    const holder = await client.holder(config.owner, signal);
    if (holder !== undefined && holder.id !== identify(config).identity.id) {
      faults.push(`${client.name}: ${describeHolder(config.owner, holder)}; nothing was changed`);
      return { faults, differs: true, found: undefined };
    }
    const { changed, removed, refused, leftOut } = await push(client, mirror, patch, signal);
    if (changed.length > 0) output.out(`${client.name}: changed ${changed.join(', ')}`);
    if (removed.length > 0) output.out(`${client.name}: removed ${removed.join(', ')}`);
    for (const { message } of refused.values()) faults.push(message);
    for (const [name, pieces] of leftOut) faults.push(describe(name, client.name, pieces));
  }
  return { faults, differs: patch !== undefined, found: document };
}

/** Of what Consul did not tell, the snapshot keeps what a target serves, or else what it has. */
async function writeSnapshot(
  path: string,
  state: State,
  owner: string,
  served: Document[],
): Promise<void> {
  for (const { upstreams } of [lastSnapshot(path), ...served]) {
    for (const [name, upstream] of Object.entries(upstreams)) {
      if (upstream.owner === owner) state.remember(name, upstream);
    }
  }
  await saveSnapshot(path, { savedAt: new Date(), document: ownDocument(state, owner) });
}

/** A damaged one is as good as none. */
function lastSnapshot(path: string): Document {
  try {
    return loadSnapshot(path)?.document ?? { upstreams: {} };
  } catch (error) {
    if (error instanceof CodedError) return { upstreams: {} };
    throw error;
  }
}

/** Upstreams of our owner that the file does not have. */
function sayUnpruned(
  target: string,
  { upstreams }: Document,
  { file, owner }: Config,
  state: State,
  output: Output,
): void {
  // Of --service alone it is plain that there may be others.
  if (file === undefined || state.isKnown) return;
  const stay = Object.keys(upstreams).filter(
    (name) => upstreams[name]?.owner === owner && state.get(name) === undefined,
  );
  if (stay.length === 0) return;
  output.err(`${target}: not in ${file}, and stays without --prune: ${stay.join(', ')}`);
}

/** Peers of a target that are not observed any more, and that we do not believe to be gone. */
function keepDoubtful(document: Document, config: Config, state: State): string[] {
  const kept = new Map<HoldKind, string[]>();
  for (const name of state.names()) {
    const upstream = entry(document.upstreams, name);
    const [kind] = state.get(name)?.held?.doubts.keys() ?? [];
    if (kind === undefined || upstream?.owner !== config.owner) continue;
    state.remember(name, upstream);
    const count = Object.keys(upstream.peers).length;
    if (count > 0) kept.set(kind, [...(kept.get(kind) ?? []), `${name} keeps its ${count} peers`]);
  }
  return [...kept].map(([kind, which]) => {
    return `${which.join(', ')}, though ${kind.kept(state.overview())}`;
  });
}

function printPatch(target: string, patch: DocumentPatch | undefined, output: Output): void {
  // On stderr, so that stdout is JSON that can be sent as it is.
  output.err(`${target}: ${patch === undefined ? 'nothing to change' : 'would be sent:'}`);
  output.out(JSON.stringify(patch ?? {}, null, 2));
}
