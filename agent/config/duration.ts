const units: Record<string, number> = { ms: 0.001, s: 1, m: 60, h: 3600 };

/** What `parseDuration` takes, for messages. */
export const durationForm =
  'a duration from 0 to 24h, such as 500ms, 60s, 2m or a number of seconds';

/**
 * @param value a number of seconds, or a number with `ms`, `s`, `m` or `h`
 * @returns seconds, at most a day, to the millisecond; undefined for anything else
 */
export function parseDuration(value: unknown): number | undefined {
  if (typeof value === 'number') return bounded(value);
  if (typeof value !== 'string') return undefined;
  const [, number, unit] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(value) ?? [];
  if (number === undefined || unit === undefined) return undefined;
  return bounded(Number(number) * (units[unit] ?? Number.NaN));
}

function bounded(seconds: number): number | undefined {
  return seconds >= 0 && seconds <= 86_400 ? Math.round(seconds * 1000) / 1000 : undefined;
}
