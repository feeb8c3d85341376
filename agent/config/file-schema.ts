import { z } from 'zod';
import { type SourceConfig, sourceKinds } from '../source/source.ts';
import * as field from '../state/field-checks.ts';
import { durationForm, parseDuration } from './duration.ts';

const anyText = field.text(1, 4096);

const duration = z.unknown().transform((value, context) => {
  const seconds = parseDuration(value);
  if (seconds !== undefined) return seconds;
  context.addIssue({ code: 'custom', message: durationForm });
  return z.NEVER;
});

const tls = z.strictObject({
  ca_file: anyText.exactOptional(),
  cert_file: anyText.exactOptional(),
  key_file: anyText.exactOptional(),
  server_name: anyText.exactOptional(),
  verify: field.boolean.exactOptional(),
});

export const consulSchema = z.strictObject({
  address: z
    .union(
      [anyText, z.array(anyText).min(1, 'an address or a list of addresses')],
      'an address or a list of addresses',
    )
    .exactOptional(),
  token_file: anyText.exactOptional(),
  datacenter: anyText.exactOptional(),
  namespace: anyText.exactOptional(),
  consistency: field.oneOf('stale', 'default', 'consistent').exactOptional(),
  wait: duration
    .refine((seconds) => seconds >= 1 && seconds <= 600, 'a duration from 1s to 10m')
    .exactOptional(),
  max_connections: field.integer(3, 10_000).exactOptional(),
  tls: tls.exactOptional(),
});

const kindNames = Object.keys(sourceKinds) as SourceConfig['kind'][];
const kindKeys: object = Object.assign({}, ...Object.values(sourceKinds).map(({ keys }) => keys));

export const defaultKind: SourceConfig['kind'] = 'health';

const upstream = z
  .strictObject({
    source: field.oneOf(...kindNames).exactOptional(),
    ...kindKeys,
    hold_empty: duration.exactOptional(),
    ...field.settings(duration),
  })
  .superRefine((value, context) => {
    const { keys: own } = sourceKinds[value.source ?? defaultKind];
    const keys = Object.keys(value).filter((key) => key in kindKeys && !(key in own));
    if (keys.length > 0) context.addIssue({ code: 'unrecognized_keys', keys, input: value });
  })
  .refine(field.hasHashKey, field.hashKeyMissing);

/** An upstream may be written as `web:` alone. */
const upstreamOrNothing = z.preprocess((value) => value ?? {}, upstream);

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;

/** `reloadless.yml` as it is written; what is absent takes its default later. */
export const fileSchema = z.strictObject({
  consul: consulSchema.exactOptional(),
  openresty: z
    .array(z.strictObject({ address: anyText, token_file: anyText.exactOptional() }))
    .min(1, 'a list of at least one target')
    .exactOptional(),
  snapshot: anyText.exactOptional(),
  owner: field.owner.exactOptional(),
  upstreams: z
    .record(z.string().refine(field.isUpstreamName, field.upstreamName), upstreamOrNothing)
    .exactOptional(),
  log: z
    .strictObject({
      level: field.oneOf(...logLevels).exactOptional(),
      format: field.oneOf('json', 'pretty').exactOptional(),
    })
    .exactOptional(),
});

export type FileConfig = z.infer<typeof fileSchema>;
export type UpstreamFileConfig = z.infer<typeof upstream>;
