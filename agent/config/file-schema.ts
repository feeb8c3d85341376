import { z } from 'zod';
import * as field from '../state/field-checks.ts';
import { durationForm, parseDuration } from './duration.ts';

const anyText = field.text(1, 4096);

const duration = z.unknown().transform((value, context) => {
  const seconds = parseDuration(value);
  if (seconds !== undefined) return seconds;
  context.addIssue({ code: 'custom', message: durationForm });
  return z.NEVER;
});

/** `off`, or percent. YAML 1.1 readers take a bare off for false. */
const panicThreshold = field
  .expected<'off' | false | number>(
    (value) => value === 'off' || value === false || isPercent(value),
    'off or a number from 0 to 100',
  )
  .transform((value) => (typeof value === 'number' ? value : ('off' as const)));

function isPercent(value: unknown): boolean {
  return typeof value === 'number' && value >= 0 && value <= 100;
}

function oneOf<const T extends string>(...values: T[]) {
  return field.expected<T>(
    (value) => values.some((one) => one === value),
    `one of ${values.join(', ')}`,
  );
}

const tls = z.strictObject({
  ca_file: anyText.exactOptional(),
  cert_file: anyText.exactOptional(),
  key_file: anyText.exactOptional(),
  server_name: anyText.exactOptional(),
  verify: field.boolean.exactOptional(),
});

export const consulSchema = z.strictObject({
  address: anyText.exactOptional(),
  token_file: anyText.exactOptional(),
  datacenter: anyText.exactOptional(),
  namespace: anyText.exactOptional(),
  consistency: oneOf('stale', 'default', 'consistent').exactOptional(),
  wait: duration
    .refine((seconds) => seconds >= 1 && seconds <= 600, 'a duration from 1s to 10m')
    .exactOptional(),
  max_connections: field.integer(3, 10_000).exactOptional(),
  tls: tls.exactOptional(),
});

const upstream = z
  .strictObject({
    service: anyText.exactOptional(),
    port: anyText.exactOptional(),
    tags: z.array(anyText).exactOptional(),
    filter: anyText.exactOptional(),
    min_health: oneOf('passing', 'warning').exactOptional(),
    panic_threshold: panicThreshold.exactOptional(),
    hold_empty: duration.exactOptional(),
    ...field.settings(duration),
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
      level: oneOf(...logLevels).exactOptional(),
      format: oneOf('json', 'pretty').exactOptional(),
    })
    .exactOptional(),
});

export type FileConfig = z.infer<typeof fileSchema>;
export type UpstreamFileConfig = z.infer<typeof upstream>;
