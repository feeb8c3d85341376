import { hostname, userInfo } from 'node:os';
import { type Flags, loadTargets } from '../config/resolve.ts';
import { type AdminClient, createAdminClient } from '../openresty/admin.ts';
import { entry, type Override, type Upstream } from '../state/document.ts';
import { override, peer as peerSchema } from '../state/document-schema.ts';
import { isUpstreamName } from '../state/field-checks.ts';
import { reason } from '../telemetry/log.ts';
import { sleep } from '../util/backoff.ts';
import { whyInvalid } from '../util/invalid.ts';
import { brief, clip, show } from '../util/text.ts';
import { describeOverride } from './describe-override.ts';
import type { Output } from './output.ts';
import { retry } from './retry.ts';
import { readStatus } from './status.ts';

/** What is said of a peer; null takes it away. */
export type Word = { [K in keyof Override]?: Override[K] | null };

export interface ByHandOptions {
  /** How long it holds, in seconds; undefined: until it is taken away. */
  for?: number;
  note?: string;
  /** Wait until the peer has no request left. */
  wait?: boolean;
  /** For the whole, in seconds. */
  timeout: number;
}

/** Between two looks at a peer that still has requests, in ms. */
const interval = 500;

/**
 * So many looks must find no request: workers tell once a second what they have,
 * so one look may be about the time before.
 */
const quietLooks = 5;

/**
 * Says something of one peer to each target, above what Consul says of it.
 *
 * @param word null takes all away that was said
 * @returns the exit code: 1 when a target did not take it, or when the peer still
 *   has requests at the end of the time
 * @throws ConfigError
 */
export async function sayByHand(
  flags: Flags,
  { upstream, peer }: { upstream: string; peer: string },
  word: Word | null,
  options: ByHandOptions,
  output: Output,
): Promise<number> {
  const signal = AbortSignal.timeout(options.timeout * 1000);
  const sets = Object.values(word ?? {}).some((value) => value !== null);
  const said = word !== null && sets ? withFrame(word, options) : word;
  const wrong = isUpstreamName(upstream) ? whyWrong(said) : `${show(upstream)} is not an upstream`;
  if (wrong !== undefined) {
    output.err(`reloadless: ${wrong}`);
    return 2;
  }
  const results = await Promise.all(
    loadTargets(flags, process.env)
      .map(createAdminClient)
      .map(async (client) => {
        try {
          await sayTo(client, upstream, peer, said, output, signal);
          if (options.wait) await quiet(client, upstream, peer, signal);
          if (options.wait)
            output.out(`${client.name}: ${peer} of ${upstream} has no request left`);
          return true;
        } catch (error) {
          output.err(`reloadless: ${signal.aborted ? late(client, options) : reason(error)}`);
          return false;
        } finally {
          client.close();
        }
      }),
  );
  return results.every(Boolean) ? 0 : 1;
}

function late({ name }: AdminClient, { timeout }: ByHandOptions): string {
  return `${name}: not done in ${timeout} s`;
}

/** The last word has one end, one note and one who says it, for all that is said. */
function withFrame(word: Word, options: ByHandOptions): Word {
  const end = options.for === undefined ? null : Math.ceil(Date.now() / 1000 + options.for);
  return { ...word, expires_at: end, note: options.note ?? null, by: whoami() };
}

function whoami(): string {
  try {
    return clip(`${userInfo().username}@${hostname()}`, 255);
  } catch {
    // A user without an entry in the password file.
    return clip(`uid ${process.getuid?.()}@${hostname()}`, 255);
  }
}

/** @returns why the fields are not right; undefined: they are */
function whyWrong(said: Word | null): string | undefined {
  const given = Object.fromEntries(
    Object.entries(said ?? {}).filter(([, value]) => value !== null),
  );
  const result = override.safeParse(given);
  return result.success ? undefined : whyInvalid(result.error, given);
}

async function sayTo(
  client: AdminClient,
  upstream: string,
  peer: string,
  said: Word | null,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const before = await retry(() => client.upstream(upstream, signal), signal);
  const isKnown = before && (Object.hasOwn(before.peers, peer) || said === null);
  if (!isKnown) throw new Error(`${client.name}: ${missing(before, upstream, peer)}`);
  const patch = { overrides: { [peer]: said } };
  // No If-Match: what it says does not hang on what was there.
  const unsaved = await retry(() => client.patchUpstream(upstream, patch, signal), signal);
  const after = await retry(() => client.upstream(upstream, signal), signal);
  output.out(`${client.name}: ${peer} of ${upstream}: ${describe(after, peer)}`);
  if (unsaved !== undefined) {
    const why = brief(unsaved, 300);
    output.err(`${client.name}: it is in force, but not saved: a restart loses it: ${why}`);
  }
  if (after !== undefined && !Object.keys(after.peers).some((key) => serves(after, key))) {
    output.err(`${client.name}: ${upstream} has no peer that takes new requests`);
  }
}

function missing(found: Upstream | undefined, upstream: string, peer: string): string {
  if (found === undefined) return `there is no upstream ${upstream}`;
  const has = Object.keys(found.peers);
  const some = has.slice(0, 5).join(', ') + (has.length > 5 ? ', ...' : '');
  return `${upstream} has no peer ${show(peer)}: it has ${some || 'none'}`;
}

function serves({ peers, overrides = {} }: Upstream, key: string): boolean {
  const { weight, drain, down } = { ...entry(peers, key), ...entry(overrides, key) };
  return weight !== 0 && !drain && !down;
}

/** What is said of the peer, for people. */
function describe(upstream: Upstream | undefined, peer: string): string {
  const said = entry(upstream?.overrides ?? {}, peer);
  return said === undefined ? 'nothing is said by hand' : describeOverride(said);
}

async function quiet(
  client: AdminClient,
  upstream: string,
  peer: string,
  signal: AbortSignal,
): Promise<void> {
  for (let looks = 0; looks < quietLooks; ) {
    await sleep(interval, signal);
    const status = readStatus(client.name, await client.status(signal));
    const found = status.upstreams[upstream]?.peers[peer];
    looks = (found?.active ?? 0) === 0 ? looks + 1 : 0;
  }
}

const fieldsOfPeer = peerSchema.shape;

/** What `set` takes, for messages. */
export const fieldForm = `field=value, with a field of ${Object.keys(fieldsOfPeer).join(', ')}`;

/**
 * Reads `weight=5`, `drain=true`, `zone=` of a command line; with nothing behind
 * `=`, the field is taken away.
 *
 * @returns undefined when one of them is not such a text
 */
export function readFields(texts: string[]): Word | undefined {
  const fields: [string, unknown][] = [];
  for (const text of texts) {
    const [, name, value = ''] = /^([a-z_]+)=(.*)$/s.exec(text) ?? [];
    if (name === undefined || !Object.hasOwn(fieldsOfPeer, name)) return undefined;
    fields.push([name, parseValue(name, value)]);
  }
  return Object.fromEntries(fields) as Word;
}

function parseValue(name: string, text: string): unknown {
  if (text === '') return null;
  if (name === 'id' || name === 'zone') return text;
  if (text === 'true' || text === 'false') return text === 'true';
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : text;
}
