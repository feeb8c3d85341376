import { z } from 'zod';
import { CodedError } from '../util/coded-error.ts';
import { whyInvalid } from '../util/invalid.ts';
import { isPeerAddress } from './address.ts';
import type { Document, Peers, Upstream } from './document.ts';
import * as field from './field-checks.ts';

export const peer = z.strictObject({
  weight: field.integer(0, 65_535).exactOptional(),
  backup: field.boolean.exactOptional(),
  drain: field.boolean.exactOptional(),
  down: field.boolean.exactOptional(),
  id: field.text(1, 255).exactOptional(),
  zone: field.zone.exactOptional(),
  max_conns: field.integer(0, 65_535).exactOptional(),
  slow_start: field.seconds.exactOptional(),
  max_fails: field.integer(0, 65_535).exactOptional(),
  fail_timeout: field.seconds.exactOptional(),
});

export const override = z.strictObject({
  // Of 32 bits: milliseconds are refused.
  expires_at: field.integer(1, 2 ** 32 - 1).exactOptional(),
  note: field.text(1, 255).exactOptional(),
  by: field.text(1, 255).exactOptional(),
  ...peer.shape,
});

const addressForm = 'an address in canonical form: a.b.c.d:port or [v6]:port';
const peers = record(isPeerAddress, addressForm, peer);
const overrides = record(isPeerAddress, addressForm, override).exactOptional();

export const upstream = z
  .strictObject({
    owner: field.owner.exactOptional(),
    ...field.settings(field.seconds),
    overrides,
    peers,
  })
  .refine(field.hasHashKey, field.hashKeyMissing);

const document = z.strictObject({
  upstreams: record(field.isUpstreamName, field.upstreamName, upstream),
});

const anything = z.strictObject({ upstreams: record(() => true, '', z.unknown()) });

export interface Sifted {
  document: Document;
  /** One line for each upstream and peer that is not in the document, and why. */
  leftOut: string[];
}

/**
 * Takes what the admin endpoint would take: a bad peer is left out alone, and so
 * is an upstream whose own fields are bad.
 *
 * @throws CodedError when it is no document at all; all messages name the field, its
 *   value and what was expected
 */
export function siftDocument(value: unknown): Sifted {
  const whole = document.safeParse(value);
  if (whole.success) return { document: whole.data, leftOut: [] };
  const given = anything.safeParse(value);
  if (!given.success) throw new CodedError('snapshot/damaged', whyInvalid(given.error, value));
  const leftOut: string[] = [];

  function take(name: string, part: unknown): Upstream | undefined {
    const input = { upstreams: { [name]: part } };
    const result = document.safeParse(input);
    if (result.success) return result.data.upstreams[name];
    leftOut.push(whyInvalid(result.error, input));
    return undefined;
  }

  const upstreams: [string, Upstream][] = [];
  for (const [name, part] of Object.entries(given.data.upstreams)) {
    const { settings, peers } = split(part);
    const upstream = take(name, settings);
    if (upstream === undefined) continue;
    const taken = Object.entries(peers).filter(
      ([key, fields]) => take(name, { peers: { [key]: fields } }) !== undefined,
    );
    upstreams.push([name, { ...upstream, peers: Object.fromEntries(taken) as Peers }]);
  }
  return { document: { upstreams: Object.fromEntries(upstreams) }, leftOut };
}

/** What may be an upstream, as one without peers, and its peers. */
function split(part: unknown): { settings: unknown; peers: object } {
  if (!field.isObject(part)) return { settings: part, peers: {} };
  const { peers = {}, ...settings } = part as { peers?: unknown };
  if (!field.isObject(peers)) return { settings: part, peers: {} };
  return { settings: { ...settings, peers: {} }, peers };
}

/**
 * An object of such items, taken as it is. `z.record` would pass over the key
 * `__proto__` in silence.
 */
function record<T>(isKey: (key: string) => boolean, expectation: string, item: z.ZodType<T>) {
  return z
    .custom<Record<string, T>>(field.isObject, 'a mapping of names to values')
    .superRefine((given, { issues }) => {
      for (const [key, input] of Object.entries(given)) {
        if (!isKey(key)) {
          const why = { code: 'custom' as const, path: [], message: expectation };
          issues.push({ code: 'invalid_key', origin: 'record', path: [key], issues: [why], input });
        }
        for (const issue of item.safeParse(input).error?.issues ?? []) {
          issues.push({ ...issue, path: [key, ...issue.path] } as z.core.$ZodRawIssue);
        }
      }
    });
}
