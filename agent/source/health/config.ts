import { z } from 'zod';
import * as field from '../../state/field-checks.ts';
import type { SourceConfig } from '../source.ts';
import type { HealthPolicy } from './serving.ts';

export interface HealthConfig extends SourceConfig {
  readonly kind: 'health';
  service: string;
  /** Consul's filter expression, the tags included. */
  filter: string | undefined;
  /** The name of the port, of a service that has several; undefined: the default one. */
  port: string | undefined;
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

/** What an upstream says of it in reloadless.yml. */
export const keys = {
  service: anyText.exactOptional(),
  port: anyText.exactOptional(),
  tags: z.array(anyText).exactOptional(),
  filter: anyText.exactOptional(),
  min_health: field.oneOf('passing', 'warning').exactOptional(),
  panic_threshold: panicThreshold.exactOptional(),
};

/** @param upstream its name, which is the service's where nobody says otherwise */
export function configure(
  upstream: string,
  written: z.infer<z.ZodObject<typeof keys>>,
): HealthConfig {
  const { service, port, tags, filter, min_health, panic_threshold } = written;
  return {
    kind: 'health',
    service: service ?? upstream,
    filter: filterExpression(tags ?? [], filter),
    port,
    policy: {
      min_health: min_health ?? 'warning',
      panic_threshold: panic_threshold === 'off' ? undefined : (panic_threshold ?? 0),
    },
  };
}

/** Tags become part of the filter: Consul deprecates the `tag` parameter in its favour. */
function filterExpression(tags: string[], filter: string | undefined): string | undefined {
  const terms = tags.map((tag) => `${JSON.stringify(tag)} in Service.Tags`);
  if (filter !== undefined) terms.push(terms.length > 0 ? `(${filter})` : filter);
  return terms.length > 0 ? terms.join(' and ') : undefined;
}
