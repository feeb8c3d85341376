import { z } from 'zod';
import { isPeerAddress } from './address.ts';
import type { Document } from './document.ts';
import * as field from './fields.ts';
import { refusal } from './refusal.ts';

const peer = z.strictObject({
  weight: field.integer(0, 65_535).exactOptional(),
  backup: field.boolean.exactOptional(),
  drain: field.boolean.exactOptional(),
  id: field.text(1, 255).exactOptional(),
  zone: field.zone.exactOptional(),
  max_conns: field.integer(0, 65_535).exactOptional(),
  slow_start: field.seconds.exactOptional(),
});

const peers = z.record(
  z.string().refine(isPeerAddress, 'an address in canonical form: a.b.c.d:port or [v6]:port'),
  peer,
);

const upstream = z
  .strictObject({
    owner: field.owner.exactOptional(),
    ...field.settings(field.seconds),
    peers,
  })
  .refine(field.hasHashKey, field.hashKeyMissing);

const document = z.strictObject({
  upstreams: z.record(
    z.string().refine(field.isUpstreamName, 'a name: 1 to 128 of A-Z a-z 0-9 . _ -'),
    upstream,
  ),
});

/**
 * Takes only what the admin endpoint would take.
 *
 * @throws Error whose message names the field, its value and what was expected
 */
export function parseDocument(value: unknown): Document {
  const result = document.safeParse(value);
  if (!result.success) throw new Error(refusal(result.error, value));
  return result.data;
}
