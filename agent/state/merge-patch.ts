/** JSON merge patch, RFC 7396. A document never holds null: in a patch, null removes. */

export type Json = string | number | boolean | null | Json[] | JsonObject;
export type JsonObject = { [key: string]: Json };

/**
 * The smallest patch that turns one document into another.
 *
 * @param to holds no null, which no merge patch could express
 * @returns undefined when the two are equal, whatever the order of their keys
 */
export function diff(from: JsonObject, to: JsonObject): JsonObject | undefined {
  if (from === to) return undefined;
  const changes: [string, Json][] = [];
  for (const key of Object.keys(from)) {
    if (!Object.hasOwn(to, key)) changes.push([key, null]);
  }
  for (const key of Object.keys(to)) {
    const value = to[key] as Json;
    const old = Object.hasOwn(from, key) ? from[key] : undefined;
    if (isObject(value) && isObject(old)) {
      const inner = diff(old, value);
      if (inner !== undefined) changes.push([key, inner]);
    } else if (!isEqual(old, value)) {
      changes.push([key, value]);
    }
  }
  return changes.length === 0 ? undefined : Object.fromEntries(changes);
}

/**
 * The document after the patch (RFC 7396 section 2). Neither argument is changed,
 * and the result shares with them what stays the same and what is new.
 */
export function apply(target: JsonObject, patch: JsonObject): JsonObject {
  const result = { ...target };
  for (const key of Object.keys(patch)) {
    const change = patch[key] as Json;
    if (change === null) {
      delete result[key];
      continue;
    }
    const old = Object.hasOwn(target, key) ? target[key] : undefined;
    put(
      result,
      key,
      !isObject(change) ? change : isObject(old) ? apply(old, change) : made(change),
    );
  }
  return result;
}

/** Not by assignment, which would lose a key like `__proto__`. */
export function put<T>(record: Record<string, T>, key: string, value: T): void {
  Object.defineProperty(record, key, {
    configurable: true,
    enumerable: true,
    writable: true,
    value,
  });
}

/** What a patch makes where there is no object; one without a null is made of itself. */
function made(patch: JsonObject): JsonObject {
  return holdsNull(patch) ? apply({}, patch) : patch;
}

function holdsNull(value: Json): boolean {
  if (value === null) return true;
  return isObject(value) && Object.values(value).some(holdsNull);
}

function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @returns whether they are the same, whatever the order of their keys */
export function isEqual(a: Json | undefined, b: Json): boolean {
  if (Array.isArray(a) && Array.isArray(b)) {
    return a.length === b.length && a.every((value, i) => isEqual(value, b[i] as Json));
  }
  if (isObject(a) && isObject(b)) return diff(a, b) === undefined;
  return a === b;
}
