import { allNames, difference } from '../state/desired.ts';
import { type Document, putSubset, subset } from '../state/document.ts';
import { type DocumentPatch, diffDocuments } from '../state/parts.ts';
import type { State } from '../state/state.ts';
import { boundedLog } from '../telemetry/bounded.ts';
import { type Log, reason } from '../telemetry/log.ts';
import { sleep } from '../util/backoff.ts';
import { pauseAfter } from '../util/coded-error.ts';
import { brief } from '../util/text.ts';
import { createWaker } from '../util/waker.ts';
import type { AdminClient, Mirror } from './admin.ts';
import { createLease, type Owner } from './lease.ts';
import { push } from './push.ts';
import { createRefusals } from './refusals.ts';
import { undone } from './undone.ts';

export interface Target {
  /** An agent of another configuration has the target. */
  readonly isWaiting: boolean;
  /** It fails, which the log has said: whose it is now is not known. */
  readonly isFailing: boolean;
  /** What is desired of an upstream is another now; without a name: perhaps of each. */
  changed(name?: string): void;
  /** @throws Error when the token file cannot be read */
  readToken(): void;
  stop(): Promise<void>;
}

export interface TargetOptions {
  client: AdminClient;
  /** What the target should have. */
  state: State;
  /** Hears of each document that was read from the target, before it is compared. */
  learnt: (document: Document) => void;
  /** Who we are, now. */
  who: () => Owner;
  /** Hears of what the target has taken. */
  applied: (change: { target: string; patch: DocumentPatch }) => void;
  /** Called when the lease is ours again after another agent had it. */
  gained: () => void;
  log: Log;
}

/** Between two looks at a target where nothing changes, in ms. */
const interval = 1000;

/** After one look, so many upstreams are named of which something was undone. */
const mostUndone = 10;

/**
 * Keeps one target at the desired state until stopped: one push in flight, the
 * latest state wins, and the difference is taken against what the target has.
 */
export function startTarget(options: TargetOptions): Target {
  const { client, log } = options;
  const abort = new AbortController();
  const { signal } = abort;
  const waker = createWaker(signal);
  const refusals = createRefusals(client.name, log);
  const faults = boundedLog(log);
  const lease = createLease(client, options.who, log);
  let isWaiting = false;
  let mirror: Mirror | undefined;
  let instance: string | undefined;
  /** What the target had when we last left it as it should be; undefined: that is not known. */
  let left: Document | undefined;
  /** Upstreams that may differ from what is desired; undefined: all of them may. */
  let dirty: Set<string> | undefined;
  /** Those that the log has said to be of others. */
  const foreign = new Set<string>();
  /** The target fails, which the log has said. */
  let isFailing = false;
  /** The log has said that the target warns of something. */
  let warned = false;

  async function read(): Promise<void> {
    const found = await client.get(mirror?.etag, signal);
    if (found === undefined) return;
    mirror = found;
    dirty = undefined;
    options.learnt(found.document);
    const [now] = found.etag.split('.');
    if (now === instance) return;
    log.info(`${client.name}: ${instance === undefined ? 'connected' : 'restarted, pushing all'}`);
    instance = now;
    left = undefined;
    lease.lose();
    refusals.clear();
  }

  function reportForeign(compared: Iterable<string>, found: string[]): void {
    for (const name of compared) if (!found.includes(name)) foreign.delete(name);
    for (const name of found) {
      if (foreign.has(name)) continue;
      foreign.add(name);
      log.error({ upstream: name }, `${client.name}: ${name} belongs to another owner: left alone`);
    }
  }

  async function pushDifference(has: Mirror): Promise<void> {
    const names = dirty ?? allNames(has.document, options.state);
    for (const name of refusals.names()) names.add(name);
    dirty = new Set();
    const found = difference(has.document, names, options.state, options.who().owner);
    reportForeign(names, found.foreign);
    // Many targets have the same: it is kept once.
    putSubset(has.document, found.same, Object.keys(found.same.upstreams));
    const patch = refusals.due(found.patch);
    if (patch === undefined) {
      left = has.document;
      return;
    }
    const undo = undoneBy(patch, has.document);
    const started = performance.now();
    // Only what the patch is about, so that it costs no more with more upstreams.
    const part = { document: subset(has.document, Object.keys(patch.upstreams)), etag: has.etag };
    const result = await push(client, part, patch, signal, ({ document, etag }, names) => {
      putSubset(has.document, document, names);
      mirror = { document: has.document, etag };
    });
    left = has.document;
    refusals.note(result, patch);
    const ms = performance.now() - started;
    logPush('pushed', result.changed, ms);
    logPush('removed', result.removed, ms);
    logUndone(undo);
    const taken = [...result.changed, ...result.removed];
    if (taken.length > 0) {
      const upstreams = Object.fromEntries(taken.map((name) => [name, patch.upstreams[name]]));
      options.applied({ target: client.name, patch: { upstreams } as DocumentPatch });
    }
  }

  /** What somebody else has changed since we left the target, and the patch changes again. */
  function undoneBy(patch: DocumentPatch, has: Document): Map<string, string> {
    // Our own writes are put into the document that was read.
    if (left === undefined || left === has) return new Map();
    const names = Object.keys(patch.upstreams);
    const theirs = diffDocuments(subset(left, names), subset(has, names));
    return theirs === undefined ? new Map() : undone(left, theirs, patch);
  }

  function logUndone(undo: Map<string, string>): void {
    for (const [upstream, what] of [...undo].slice(0, mostUndone)) {
      const line = `${upstream}: undone at ${client.name} what somebody changed there: ${what}`;
      faults.warn({ upstream }, `${line}; change it in Consul or in reloadless.yml`);
    }
    const more = undo.size - mostUndone;
    if (more > 0)
      log.warn(`${client.name}: undone what somebody changed in ${more} more upstreams`);
  }

  function logPush(verb: string, names: string[], ms: number): void {
    if (names.length === 0) return;
    const what = names.length <= 5 ? names.join(', ') : `${names.length} upstreams`;
    const took = Math.round(ms * 10) / 10;
    log.info({ target: client.name, ms: took }, `${client.name}: ${what} ${verb} in ${took} ms`);
  }

  /** A renewal of the lease, when it is due, says too whether the document is another. */
  async function look(): Promise<void> {
    const had = mirror?.etag;
    if (had !== undefined && lease.isDue() && (await isOurs()) && lease.etag === had) return;
    await read();
  }

  async function isOurs(): Promise<boolean> {
    const wasWaiting = isWaiting;
    isWaiting = !(await lease.hold(signal));
    // What the other agent writes is no change of somebody's.
    if (isWaiting) left = undefined;
    if (wasWaiting && !isWaiting) options.gained();
    return !isWaiting;
  }

  function reportWarning(warning: string | undefined): void {
    if (warning !== undefined && !warned) log.warn(`${client.name}: ${brief(warning, 300)}`);
    if (warning === undefined && warned) log.info(`${client.name}: has room again`);
    warned = warning !== undefined;
  }

  function failed(error: unknown, pause: number): void {
    mirror = undefined;
    dirty = undefined;
    // Another has written: one more try is all that it takes.
    if (pause === 0) return;
    // A write without an answer may have been taken.
    left = undefined;
    const line = `${reason(error)}: trying again`;
    if (isFailing) log.debug({ err: error }, line);
    else log.error({ err: error }, line);
    isFailing = true;
  }

  async function run(): Promise<void> {
    let failures = 0;
    let woken = false;
    while (!signal.aborted) {
      try {
        if (mirror === undefined || !woken) await look();
        if (mirror !== undefined && (lease.isSure() || (await isOurs()))) {
          await pushDifference(mirror);
        }
        // In time, and behind the push: a change does not wait for it.
        await isOurs();
        reportWarning(client.warning());
        if (isFailing) log.info(`${client.name}: answers again`);
        isFailing = false;
        failures = 0;
        woken = await waker.wait(interval);
      } catch (error) {
        if (signal.aborted) return;
        failures += 1;
        const pause = pauseAfter(error, failures);
        failed(error, pause);
        await sleep(pause, signal);
      }
    }
  }

  run();
  return {
    get isWaiting() {
      return isWaiting;
    },
    get isFailing() {
      return isFailing;
    },
    changed(name) {
      if (name === undefined) dirty = undefined;
      else dirty?.add(name);
      waker.wake();
    },
    readToken: client.readToken,
    async stop() {
      abort.abort();
      await lease.release();
      client.close();
    },
  };
}
