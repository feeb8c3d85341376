import { z } from 'zod';
import type { Place } from '../../consul/transport.ts';
import * as field from '../../state/field-checks.ts';
import { placeKeys } from '../place.ts';
import type { SourceConfig } from '../source.ts';
import type { Selection } from './select.ts';
import type { HealthPolicy } from './serving.ts';
import { type SettingsSource, settingsSources } from './settings.ts';

export interface HealthConfig extends SourceConfig {
  readonly kind: 'health';
  service: string;
  place: Place;
  /** Consul's filter expression. */
  filter: string | undefined;
  selection: Selection;
  /** The name of the port, of a service that has several; undefined: the default one. */
  port: string | undefined;
  /** Which of its addresses is meant, where it has it; undefined: the plain one. */
  tagged_address: string | undefined;
  /** One without a check of its own does not serve. */
  require_check: boolean;
  settings_from: readonly SettingsSource[];
  policy: HealthPolicy;
}

const anyText = field.text(1, 4096);

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

const texts = z.array(anyText);
const meta = z.record(z.string(), z.string());

/** What an upstream says of instances in reloadless.yml, wherever its service is. */
export const instanceKeys = {
  service: anyText.exactOptional(),
  port: anyText.exactOptional(),
  tagged_address: anyText.exactOptional(),
  tags: texts.exactOptional(),
  tags_any: texts.min(1, 'a list of at least one tag').exactOptional(),
  tags_none: texts.exactOptional(),
  meta: meta.exactOptional(),
  meta_none: meta.exactOptional(),
  filter: anyText.exactOptional(),
  require_check: field.boolean.exactOptional(),
  settings_from: z.array(field.oneOf(...settingsSources)).exactOptional(),
  min_health: field.oneOf('passing', 'warning').exactOptional(),
  panic_threshold: panicThreshold.exactOptional(),
};

/** What an upstream says of it in reloadless.yml. */
export const keys = { ...instanceKeys, ...placeKeys, peer: anyText.exactOptional() };

/** @param upstream its name, which is the service's where nobody says otherwise */
export function configure(
  upstream: string,
  written: z.infer<z.ZodObject<typeof keys>>,
): HealthConfig {
  const { service, filter, port, tagged_address, min_health, panic_threshold } = written;
  const { datacenter, namespace, partition, peer } = written;
  const { tags = [], tags_any = [], tags_none = [], meta = {}, meta_none = {} } = written;
  return {
    kind: 'health',
    service: service ?? upstream,
    place: { datacenter, namespace, partition, peer },
    filter,
    selection: { tags, tags_any, tags_none, meta, meta_none },
    port,
    tagged_address,
    require_check: written.require_check ?? false,
    settings_from: written.settings_from ?? ['meta'],
    policy: {
      min_health: min_health ?? 'warning',
      panic_threshold: panic_threshold === 'off' ? undefined : (panic_threshold ?? 0),
    },
  };
}
