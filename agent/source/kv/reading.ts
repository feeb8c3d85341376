import { isIPv6 } from 'node:net';
import { z } from 'zod';
import { readPeerAddress } from '../../state/address.ts';
import type { Peer, Peers } from '../../state/document.ts';
import { isObject } from '../../state/field-checks.ts';
import { whyInvalid } from '../../util/invalid.ts';
import { brief, show } from '../../util/text.ts';
import { readFields } from '../fields.ts';

/** What keys say of the peers of an upstream. */
export interface Reading {
  /** How many peers are written there, those that cannot be used included. */
  written: number;
  peers: Peers;
  /** One line for each that cannot be used. */
  malformed: string[];
  /** One line for each value of a peer that is not used. */
  faults: string[];
}

/** What somebody has written of one peer. */
interface Entry {
  /** How a message calls it. */
  name: string;
  /** Should be an address. */
  text: string;
  /** Should be fields of a peer. */
  value: unknown;
  /** Why the value cannot be read at all. */
  fault?: string;
}

const pairSchema = z.object({ Key: z.string(), Value: z.string().nullable() });

type Pair = z.infer<typeof pairSchema>;

/** What is stored for a peer may have so many bytes; upsync reads 1024. */
const mostOfPeer = 4096;

const addressForm = 'an address: a.b.c.d:port or [v6]:port';

/**
 * Reads the keys of an upstream, which anybody may have written: a peer is there
 * if its address can be read, with those of its fields that can be used.
 *
 * @param pairs as Consul has sent them
 * @param isPrefix each key is a peer; else the one key holds a document
 */
export function readPairs(pairs: unknown[], isPrefix: boolean): Reading {
  const malformed: string[] = [];
  const faults: string[] = [];
  const peers = new Map<string, Peer>();

  function take({ name, text, value, fault }: Entry): void {
    const address = readPeerAddress(text);
    if (address === undefined || peers.has(address)) {
      const why = address === undefined ? `is not ${addressForm}` : 'is there already';
      malformed.push(`${name}: ${show(text)} ${why}`);
      return;
    }
    const fields = isObject(value) ? Object.entries(value) : [];
    // As upsync finds them, Weight is weight.
    const read = readFields(fields.map(([key, one]) => [key.toLowerCase(), one]));
    peers.set(address, read.peer);
    for (const one of fault === undefined ? read.faults : [fault]) faults.push(`${name}: ${one}`);
  }

  for (const raw of pairs) {
    const { data: pair, error } = pairSchema.safeParse(raw);
    if (pair === undefined) malformed.push(whyInvalid(error, raw));
    else if (!isPrefix) inDocument(pair, malformed).forEach(take);
    // A key that ends so is a folder, which Consul's UI makes.
    else if (!pair.Key.endsWith('/')) take(ofKey(pair));
  }
  const written = peers.size + malformed.length;
  return { written, peers: Object.fromEntries(peers), malformed, faults };
}

/** The keys themselves. */
export function keysOf(pairs: unknown[]): string[] {
  return pairs.flatMap((raw) => pairSchema.safeParse(raw).data?.Key ?? []);
}

/** As upsync does, the address is what follows the last slash. */
function ofKey({ Key, Value }: Pair): Entry {
  const entry = { name: brief(Key, 128), text: Key.slice(Key.lastIndexOf('/') + 1) };
  const bytes = Buffer.from(Value ?? '', 'base64');
  if (bytes.length > mostOfPeer) {
    const fault = `${bytes.length} bytes are more than ${mostOfPeer}`;
    return { ...entry, value: undefined, fault };
  }
  const written = bytes.toString().trim();
  return written === '' ? { ...entry, value: {} } : { ...entry, ...fieldsOf(parse(written)) };
}

/** A document: an object by address, or a list; or an object with either as its `peers`. */
function inDocument({ Key, Value }: Pair, malformed: string[]): Entry[] {
  const name = brief(Key, 128);
  const document = parse(Buffer.from(Value ?? '', 'base64').toString());
  const { peers = document } = isObject(document) ? (document as { peers?: unknown }) : {};
  if (Array.isArray(peers)) {
    return peers.map((item, i) => ({ name: `${name}: ${i}`, ...ofItem(item) }));
  }
  if (isObject(peers)) {
    return Object.entries(peers).map(([text, value]) => {
      return { name: `${name}: ${brief(text)}`, text, ...fieldsOf(value ?? {}) };
    });
  }
  malformed.push(`${name}: ${show(peers)} is not peers by address, or a list of them, as JSON`);
  return [];
}

/** An address, or an object with one, and with a port beside it where it has none. */
function ofItem(item: unknown): Omit<Entry, 'name'> {
  if (!isObject(item)) return { text: textOf(item), value: {} };
  const { address, ip, host, server, port, ...value } = item as Record<string, unknown>;
  const place = textOf(address ?? ip ?? host ?? server);
  if (port === undefined) return { text: place, value };
  return { text: `${isIPv6(place) ? `[${place}]` : place}:${textOf(port)}`, value };
}

function fieldsOf(value: unknown): Pick<Entry, 'value' | 'fault'> {
  if (isObject(value)) return { value };
  return { value: undefined, fault: `${show(value)} is not a JSON object` };
}

/** What is no JSON stays text. */
function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** To turn an object into text may call what it holds. */
function textOf(value: unknown): string {
  return typeof value === 'string' ? value : show(value);
}
