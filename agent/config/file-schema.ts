import { z } from 'zod';
import { isPattern } from '../source/discover/pattern.ts';
import { instanceKeys } from '../source/health/config.ts';
import { type SourceConfig, sourceKinds } from '../source/source.ts';
import { entry } from '../state/document.ts';
import * as field from '../state/field-checks.ts';
import { endpointForm, readEndpoint } from './address.ts';
import { durationForm, parseDuration } from './duration.ts';

const anyText = field.text(1, 4096);

const address = field.expected<string>(
  (value) => typeof value === 'string' && readEndpoint(value) !== undefined,
  endpointForm,
);

/** One, or several that are asked in turn. A union would not tell which of them is wrong. */
const addresses = z
  .custom<string | string[]>((value) => {
    const all = Array.isArray(value) ? value : [value];
    return all.length > 0 && all.every((one) => typeof one === 'string');
  }, 'an address or a list of addresses')
  .superRefine((given, context) => {
    const all =
      typeof given === 'string'
        ? [{ text: given, path: [] }]
        : given.map((text, i) => ({ text, path: [i] }));
    for (const { text, path } of all) {
      if (readEndpoint(text) !== undefined) continue;
      context.addIssue({ code: 'custom', path, message: endpointForm });
    }
  });

const duration = z.unknown().transform((value, context) => {
  const seconds = parseDuration(value);
  if (seconds !== undefined) return seconds;
  context.addIssue({ code: 'custom', message: durationForm });
  return z.NEVER;
});

const settle = z
  .strictObject({ min: duration, max: duration })
  .refine(({ min, max }) => min <= max, {
    path: ['max'],
    message: 'a duration that is not below min',
  });

const onChange = z.strictObject({
  command: z.array(anyText).min(1, 'a list: a program and its arguments'),
  timeout: duration.refine((seconds) => seconds > 0, 'a duration above 0').exactOptional(),
});

const tls = z.strictObject({
  ca_file: anyText.exactOptional(),
  cert_file: anyText.exactOptional(),
  key_file: anyText.exactOptional(),
  server_name: anyText.exactOptional(),
  verify: field.boolean.exactOptional(),
});

const consulSchema = z.strictObject({
  address: addresses.exactOptional(),
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
    settle: settle.exactOptional(),
    ...field.settings(duration),
  })
  .superRefine((value, context) => {
    // It may be no kind that there is: that is a fault of its own.
    const kind = entry(sourceKinds, value.source ?? defaultKind);
    const keys = Object.keys(value).filter((key) => kind && key in kindKeys && !(key in kind.keys));
    if (keys.length > 0) context.addIssue({ code: 'unrecognized_keys', keys, input: value });
    const fault = kind?.fault?.(value);
    if (fault !== undefined) context.addIssue({ code: 'custom', ...fault });
  })
  .refine(field.hasHashKey, {
    ...field.hashKeyMissing,
    // Also where another field is at fault, so that both are named.
    when: ({ value }) => typeof value === 'object' && value !== null,
  });

/** An upstream may be written as `web:` alone. */
const upstreamOrNothing = z.preprocess((value) => value ?? {}, upstream);

/** `z.record` would pass over the key `__proto__` in silence. */
const upstreams = z.preprocess(
  (value: unknown, context) => {
    if (Object.hasOwn(value ?? {}, '__proto__')) {
      context.addIssue({ code: 'unrecognized_keys', keys: ['__proto__'] });
    }
    return value;
  },
  z.record(z.string().refine(field.isUpstreamName, field.upstreamName), upstreamOrNothing),
);

/** The placeholder stands for any name that an upstream may have. */
function isNameTemplate(value: unknown): boolean {
  const parts = String(value).split('{service}');
  return typeof value === 'string' && parts.length === 2 && field.isUpstreamName(parts.join('x'));
}

const discoverRule = z
  .strictObject({
    // They lie where the catalogue is.
    ...instanceKeys,
    tag: anyText.exactOptional(),
    service: field
      .expected<string>(
        (value) => typeof value === 'string' && isPattern(value),
        'a name in which * is any text, or a /regex/',
      )
      .exactOptional(),
    name: field
      .expected<string>(isNameTemplate, 'a name with {service} in it once, of A-Z a-z 0-9 . _ -')
      .exactOptional(),
    hold_empty: duration.exactOptional(),
    settle: settle.exactOptional(),
    ...field.settings(duration),
  })
  .refine(
    ({ tag, service, filter }) => (tag ?? service ?? filter) !== undefined,
    "a rule: it needs a tag, a service ('*' is any) or a filter",
  )
  .refine(field.hasHashKey, field.hashKeyMissing);

const discoverRules = z.array(discoverRule).min(1, 'a rule or a list of rules');

/** One rule may stand without a list. */
const discover = z.unknown().transform((value, context) => {
  const { data, error } = Array.isArray(value)
    ? discoverRules.safeParse(value)
    : discoverRule.transform((rule) => [rule]).safeParse(value);
  if (data !== undefined) return data;
  const issues = error.issues.map((issue) => ({ ...issue, input: value }));
  context.issues.push(...(issues as typeof context.issues));
  return z.NEVER;
});

export const logLevels = ['debug', 'info', 'warn', 'error'] as const;

/** `reloadless.yml` as it is written; what is absent takes its default later. */
export const fileSchema = z.strictObject({
  consul: consulSchema.exactOptional(),
  openresty: z
    .array(z.strictObject({ address, token_file: anyText.exactOptional() }))
    .min(1, 'a list of at least one target')
    .exactOptional(),
  snapshot: anyText.exactOptional(),
  owner: field.owner.exactOptional(),
  upstreams: upstreams.exactOptional(),
  discover: discover.exactOptional(),
  settle: settle.exactOptional(),
  on_change: onChange.exactOptional(),
  pid_file: anyText.exactOptional(),
  log: z
    .strictObject({
      level: field.oneOf(...logLevels).exactOptional(),
      format: field.oneOf('json', 'pretty').exactOptional(),
    })
    .exactOptional(),
});

export type FileConfig = z.infer<typeof fileSchema>;
export type UpstreamFileConfig = z.infer<typeof upstream>;
export type DiscoverFileRule = z.infer<typeof discoverRule>;
