import { z } from 'zod';
import { type Place, placeIn } from '../../consul/transport.ts';
import type { Settings } from '../../state/document.ts';
import * as field from '../../state/field-checks.ts';
import * as health from '../health/config.ts';
import { placeKeys } from '../place.ts';
import type { SourceConfig } from '../source.ts';

export interface KvConfig extends SourceConfig {
  readonly kind: 'kv';
  /** What the keys begin with, or the one key. */
  key: string;
  place: Place;
  /** Each key is a peer; else the one key holds a document. */
  isPrefix: boolean;
  /** Says which of the peers are well; undefined: all. */
  health: health.HealthConfig | undefined;
}

const keyForm =
  'a key of Consul: 1 to 512 bytes, without a / at its begin, and without . or .. in it';

/** A path of a request would lose or change any other. */
const key = field.expected<string>(
  (value) =>
    field.text(1, 512).safeParse(value).success &&
    !String(value)
      .split('/')
      .some((part, i) => part === '.' || part === '..' || (part === '' && i === 0)),
  keyForm,
);

const whole = z.strictObject({ ...health.keys, service: field.text(1, 4096) });

/** What an upstream says of it in reloadless.yml. */
export const keys = {
  ...placeKeys,
  prefix: key.exactOptional(),
  key: key.exactOptional(),
  /** A service, or all that can be said of one. */
  health: z
    .preprocess((value) => (typeof value === 'string' ? { service: value } : value), whole)
    .exactOptional(),
};

type Written = z.infer<z.ZodObject<typeof keys>>;

/** @returns what does not go together */
export function fault({ prefix, key }: Written): { path: string[]; message: string } | undefined {
  if (prefix === undefined || key === undefined) return undefined;
  return { path: ['key'], message: 'to be given beside prefix: there is one or the other' };
}

/** @param upstream its name, which ends the prefix where nobody says otherwise */
export function configure(upstream: string, written: Written): KvConfig {
  const { prefix, key, health: of, datacenter, namespace, partition } = written;
  const place = { datacenter, namespace, partition };
  const whether = of && health.configure(upstream, of);
  return {
    kind: 'kv',
    place,
    key: key ?? asFolder(prefix ?? `upstreams/${upstream}`),
    isPrefix: key === undefined,
    health: whether && { ...whether, place: placeIn(place, whether.place) },
  };
}

/** Without the slash at its end, `upstreams/api` would have the peers of `upstreams/api2` too. */
function asFolder(prefix: string): string {
  return prefix.endsWith('/') ? prefix : `${prefix}/`;
}

/** In the layout of nginx-upsync-module, where an upstream says nothing else. */
export function defaults({ isPrefix }: KvConfig): Settings {
  return isPrefix ? { max_fails: 2, fail_timeout: 10 } : {};
}
