import { z } from 'zod';
import { balances } from './balances.ts';
import type { Sticky } from './document.ts';

/**
 * The fields of the document, each with what it may hold. The same rules stand
 * in `lua/reloadless/table/fields.lua`: the values of `test/cases/values.txt` are run
 * through both. The message of a check is what was expected, so that a report can put
 * the path and the value before it.
 */

/**
 * A value that passes a check of our own; one that fails keeps no other fault
 * from being found.
 *
 * @param expectation such as `an integer`
 */
export function expected<T>(check: (value: unknown) => boolean, expectation: string) {
  return z.custom<T>(check, { message: expectation, abort: false });
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
function isSeconds(value: unknown): value is number {
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

const hashKey = expected<string>(
  (value) =>
    isText(value, 1, 1024) &&
    /\$(\w|\{\w+\})/.test(String(value)) &&
    !/\$\{(?!\w+\})/.test(String(value)),
  'a string with nginx variables, such as $remote_addr',
);

/** A string that matches as a whole. */
function matching(pattern: RegExp, expectation: string) {
  return expected<string>((value) => typeof value === 'string' && pattern.test(value), expectation);
}

const cookieForm = 'a cookie name: 1 to 64 of A-Z a-z 0-9 _ -';
const cookieName = matching(/^[A-Za-z0-9_-]{1,64}$/, cookieForm);

const stickyObject = z.strictObject({
  cookie: cookieName,
  path: matching(
    /^\/[!-:<-~]{0,254}$/,
    'a path: / and up to 254 characters of ASCII, without spaces and ;',
  ).exactOptional(),
  domain: matching(
    /^[A-Za-z0-9.-]{1,253}$/,
    'a domain: 1 to 253 of A-Z a-z 0-9 . -',
  ).exactOptional(),
  max_age: integer(0, 2 ** 31 - 1).exactOptional(),
  secure: boolean.exactOptional(),
  http_only: boolean.exactOptional(),
  same_site: expected<'strict' | 'lax' | 'none'>(
    (value) => value === 'strict' || value === 'lax' || value === 'none',
    'one of strict, lax, none',
  ).exactOptional(),
});

/** A union would not tell what is wrong inside the object. */
export const sticky = z
  .custom<string | Sticky>(
    (value) => isObject(value) || cookieName.safeParse(value).success,
    `${cookieForm}, or an object`,
  )
  .superRefine((given, { issues }) => {
    if (typeof given === 'string') return;
    issues.push(...((stickyObject.safeParse(given).error?.issues as z.core.$ZodRawIssue[]) ?? []));
  });

/** @returns whether it is a JSON object. */
export function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

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
    sticky: sticky.exactOptional(),
    max_conns: integer(0, 65_535).exactOptional(),
    slow_start: time.exactOptional(),
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
