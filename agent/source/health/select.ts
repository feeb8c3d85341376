/** Which instances of a service are meant, by what they say of themselves. */
export interface Selection {
  /** All of them. */
  tags: readonly string[];
  /** At least one of them, if there are any. */
  tags_any: readonly string[];
  /** None of them. */
  tags_none: readonly string[];
  /** All of it. */
  meta: Readonly<Record<string, string>>;
  /** None of it. */
  meta_none: Readonly<Record<string, string>>;
}

/**
 * By this, and not by a filter of the query, so that several upstreams of one
 * service share one query.
 *
 * @param raw an entry of an answer, which may be anything
 */
export function isSelected(raw: unknown, selection: Selection): boolean {
  const { Service } = (raw ?? {}) as { Service?: { Tags?: unknown; Meta?: unknown } | null };
  const { Tags, Meta } = Service ?? {};
  const tags: unknown[] = Array.isArray(Tags) ? Tags : [];
  const meta = Object(Meta) as Record<string, unknown>;
  const has = (tag: string) => tags.includes(tag);
  const says = ([key, value]: [string, string]) => Object.hasOwn(meta, key) && meta[key] === value;
  return (
    selection.tags.every(has) &&
    (selection.tags_any.length === 0 || selection.tags_any.some(has)) &&
    !selection.tags_none.some(has) &&
    Object.entries(selection.meta).every(says) &&
    !Object.entries(selection.meta_none).some(says)
  );
}

/** For people. @returns such as `tags prod`, for each that is said */
export function describeSelection(selection: Selection): string[] {
  return Object.entries(selection).flatMap(([key, value]) => {
    const all = Array.isArray(value) ? value : Object.entries(value).map((pair) => pair.join('='));
    return all.length === 0 ? [] : [`${key} ${all.join(' ')}`];
  });
}
