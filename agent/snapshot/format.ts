import { crc32 } from 'node:zlib';
import { z } from 'zod';
import type { Document } from '../table/document.ts';
import { refusal } from '../table/refusal.ts';
import { parseDocument } from '../table/schema.ts';

export interface Snapshot {
  savedAt: Date;
  document: Document;
}

const header = z.object({
  format: z.literal(1, 'a snapshot of format 1'),
  saved_at: z.iso.datetime('a time such as 2026-01-31T12:00:00.000Z'),
  length: z.int(),
  crc32: z.int(),
});

/** Two lines: a header with the length in bytes and the CRC-32 of the second, and the document. */
export function encodeSnapshot({ savedAt, document }: Snapshot): Buffer {
  const body = Buffer.from(JSON.stringify(document));
  const head = {
    format: 1,
    saved_at: savedAt.toISOString(),
    length: body.length,
    crc32: crc32(body),
  };
  return Buffer.concat([Buffer.from(`${JSON.stringify(head)}\n`), body, Buffer.from('\n')]);
}

/** @throws Error saying how the snapshot is damaged */
export function decodeSnapshot(bytes: Buffer): Snapshot {
  const end = bytes.indexOf('\n');
  if (end === -1) throw new Error('the first line does not end');
  const raw = parseJson(bytes.subarray(0, end), 'the first line');
  const head = header.safeParse(raw);
  if (!head.success) throw new Error(`the first line: ${refusal(head.error, raw)}`);
  const body = bytes.subarray(end + 1, end + 1 + head.data.length);
  if (body.length !== head.data.length) {
    throw new Error(`it is cut off: ${body.length} of ${head.data.length} bytes`);
  }
  if (crc32(body) !== head.data.crc32) throw new Error('the checksum does not match');
  const document = parseDocument(parseJson(body, 'the second line'));
  return { savedAt: new Date(head.data.saved_at), document };
}

function parseJson(bytes: Buffer, what: string): unknown {
  try {
    return JSON.parse(bytes.toString());
  } catch {
    throw new Error(`${what} is not JSON`);
  }
}
