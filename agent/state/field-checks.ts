import { z } from 'zod';
import { balances } from './balances.ts';

/**
 * The fields of the document, each with what it may hold. The same rules stand
 * in `lua/reloadless/table/fields.lua`: the values of `test/cases/values.txt` are run
 * through both. The message of a check is what was expected, so that a report can put
 * the path and the value before it.
 */

/** A value that passes a check of our own. @param expectation such as `an integer` */
export function expected<T>(check: (value: unknown) => boolean, expectation: string) {
  return z.custom<T>(check, expectation);
}

/** A whole number within both bounds. */
export function integer(min: number, max: number) {
  return expected<number>(
    (value) => Number.isInteger(value) && Number(value) >= min && Number(value) <= max,
    `an integer from ${min} to ${max}`,
  );
}

/** A string whose length, in bytes of UTF-8 as Lua counts, is within both bounds. */
export function text(min: number, max: number) {
  return expected<string>(
    (value) => isText(value, min, max),
    `a string of ${min} to ${max} bytes without control characters`,
  );
}

function isText(value: unknown, min: number, max: number): boolean {
  if (typeof value !== 'string' || /[\p{Cc}\p{Cs}]/u.test(value)) return false;
  const length = Buffer.byteLength(value);
  return length >= min && length <= max;
}

/** @returns whether it is a number of seconds: 0 to a day, no finer than a millisecond. */
export function isSeconds(value: unknown): value is number {
  if (typeof value !== 'number' || !(value >= 0 && value <= 86_400)) return false;
  return Number(value.toFixed(3)) === value;
}

export const seconds = expected<number>(
  isSeconds,
  'a number of seconds from 0 to 86400 with at most 3 decimals',
);

export const boolean = expected<boolean>((value) => typeof value === 'boolean', 'true or false');

export const owner = text(1, 128);
export const zone = text(1, 255);

export function oneOf<const T extends string>(...values: T[]) {
  return expected<T>((value) => values.some((one) => one === value), `one of ${values.join(', ')}`);
}

export const balance = oneOf(...balances);

export const hashKey = expected<string>(
  (value) =>
    isText(value, 1, 1024) &&
    /\$(\w|\{\w+\})/.test(String(value)) &&
    !/\$\{(?!\w+\})/.test(String(value)),
  'a string with nginx variables, such as $remote_addr',
);

export const cookieName = expected<string>(
  (value) => typeof value === 'string' && /^[A-Za-z0-9_-]{1,64}$/.test(value),
  'a cookie name: 1 to 64 of A-Z a-z 0-9 _ -',
);

/** Clients take `.` and `..` out of a path before they send it (RFC 3986 section 5.2.4). */
export const upstreamName = 'a name: 1 to 128 of A-Z a-z 0-9 . _ - but not . or ..';

/** @returns whether it can be the name of an upstream. */
export function isUpstreamName(name: string): boolean {
  return /^[A-Za-z0-9._-]{1,128}$/.test(name) && name !== '.' && name !== '..';
}

/** What an upstream may set besides its peers, with `time` for the fields that hold one. */
export function settings<Time extends z.ZodType<number>>(time: Time) {
  return {
    balance: balance.exactOptional(),
    hash_key: hashKey.exactOptional(),
    sticky: cookieName.exactOptional(),
    max_fails: integer(0, 65_535).exactOptional(),
    fail_timeout: time.exactOptional(),
    max_tries: integer(1, 100).exactOptional(),
    connect_timeout: time.exactOptional(),
    send_timeout: time.exactOptional(),
    read_timeout: time.exactOptional(),
    zone: zone.exactOptional(),
  };
}

/** Hashing needs something to hash. */
export function hasHashKey(upstream: { balance?: string; hash_key?: string }): boolean {
  return upstream.balance !== 'hash' || upstream.hash_key !== undefined;
}

export const hashKeyMissing = {
  path: ['hash_key'],
  message: 'what to hash, such as $remote_addr, since balance is hash',
};
