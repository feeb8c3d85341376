import { setImmediate } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { z } from 'zod';
import type { Document } from '../state/document.ts';
import { siftDocument } from '../state/document-schema.ts';
import { whyInvalid } from '../util/invalid.ts';
import { SnapshotError } from './error.ts';

// The reader in nginx, lua/reloadless/boot/snapshot.lua, has the same rules:
// test/cases/snapshots.json is run through both.

export interface Snapshot {
  savedAt: Date;
  document: Document;
}

export interface ReadSnapshot extends Snapshot {
  /** What the admin endpoint would refuse, one line each; it is not in the document. */
  leftOut: string[];
}

/** What a snapshot may hold at most, in bytes. */
export const largest = 64 * 1024 * 1024;

const date = String.raw`\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])`;
const time = String.raw`([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?`;

const header = z.object({
  format: z.literal(1, 'a snapshot of format 1'),
  saved_at: z
    .string()
    .regex(new RegExp(`^${date}T${time}Z$`), 'a time such as 2026-01-31T12:00:00.000Z'),
  length: z.int(),
  crc32: z.int(),
});

/** So long a large one is encoded at a time, in ms: what else there is to do goes on in between. */
const slice = 1;

/**
 * Two lines: a header with the length in bytes and the CRC-32 of the second,
 * and the document.
 *
 * @throws SnapshotError when it is larger than a snapshot may be
 */
export async function encodeSnapshot({ savedAt, document }: Snapshot): Promise<Buffer> {
  const body = Buffer.concat(await encodeDocument(document));
  const head = {
    format: 1,
    saved_at: savedAt.toISOString(),
    length: body.length,
    crc32: crc32(body),
  };
  const bytes = Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), body, Buffer.from('\n')]);
  if (bytes.length > largest)
    throw new SnapshotError(
      'snapshot/unwritten',
      `it has ${bytes.length} bytes, the most is ${largest}`,
    );
  return bytes;
}

/** As `JSON.stringify` would write it. */
async function encodeDocument({ upstreams }: Document): Promise<Buffer[]> {
  const pieces: Buffer[] = [];
  let text = '{"upstreams":{';
  let separator = '';
  let began = performance.now();
  for (const [name, upstream] of Object.entries(upstreams)) {
    text += `${separator}${JSON.stringify(name)}:${JSON.stringify(upstream)}`;
    separator = ',';
    if (performance.now() - began < slice) continue;
    pieces.push(Buffer.from(text));
    text = '';
    await setImmediate();
    began = performance.now();
  }
  pieces.push(Buffer.from(`${text}}}`));
  return pieces;
}

/** @throws CodedError saying how the snapshot is damaged */
export function decodeSnapshot(bytes: Buffer): ReadSnapshot {
  const end = bytes.indexOf('\n');
  if (end === -1) throw damaged('the first line does not end');
  const raw = parseJson(bytes.subarray(0, end), 'the first line');
  const head = header.safeParse(raw);
  if (!head.success) throw damaged(`the first line: ${whyInvalid(head.error, raw)}`);
  const body = bytes.subarray(end + 1, -1);
  if (body.length !== head.data.length || bytes.at(-1) !== newline) {
    const rest = bytes.length - end - 1;
    throw damaged(
      `it has ${rest} bytes behind the first line, not ${head.data.length} and a newline`,
    );
  }
  if (crc32(body) !== head.data.crc32) throw damaged('the checksum does not match');
  const sifted = siftDocument(parseJson(body, 'the second line'));
  return { savedAt: new Date(head.data.saved_at), ...sifted };
}

function damaged(message: string, cause?: unknown): SnapshotError {
  return new SnapshotError('snapshot/damaged', message, cause);
}

const newline = 10;
// A byte order mark is no JSON to nginx either.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * @throws SnapshotError when nginx could not read it: what is not JSON, half of a pair
 *   of surrogates, or an array, since it cannot tell [] from {}
 */
function parseJson(bytes: Buffer, what: string): unknown {
  let holdsArray = false;
  let value: unknown;
  try {
    value = JSON.parse(utf8.decode(bytes), (key, item) => {
      if (/\p{Cs}/u.test(typeof item === 'string' ? key + item : key)) throw new Error('surrogate');
      holdsArray ||= Array.isArray(item);
      return item;
    });
  } catch (error) {
    throw damaged(`${what} is not JSON`, error);
  }
  if (holdsArray) throw damaged(`${what} holds an array: expected objects only`);
  return value;
}
