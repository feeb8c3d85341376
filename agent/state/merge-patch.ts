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
  for (const [key, value] of Object.entries(to)) {
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
  const result = new Map(Object.entries(target));
  for (const [key, value] of Object.entries(patch)) {
    const old = result.get(key);
    if (value === null) result.delete(key);
    else if (isObject(value)) result.set(key, isObject(old) ? apply(old, value) : made(value));
    else result.set(key, value);
  }
  // Not by assignment: that would make a key "__proto__" disappear.
  return Object.fromEntries(result);
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
