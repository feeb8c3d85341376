const encoder = new TextEncoder();

/**
 * The beginning of a text that somebody else has written: whole characters that
 * fit into so many bytes of UTF-8, control characters as `?` and halves of a
 * surrogate pair as U+FFFD. cjson takes neither, and a terminal acts on the first.
 */
export function clip(text: string, bytes: number): string {
  // Most texts are so.
  if (text.length <= bytes && /^[ -~]*$/.test(text)) return text;
  const { read } = encoder.encodeInto(text, new Uint8Array(bytes));
  return text
    .slice(0, read)
    .toWellFormed()
    .replace(/\p{Cc}/gu, '?');
}

/** As much of any text as a line of a log can bear, with three dots where more was. */
export function brief(text: string, bytes = 80): string {
  const begin = clip(text, bytes);
  return begin.length < text.length ? `${begin}...` : begin;
}

/**
 * Any value of JSON or YAML as JSON, as much of it as a line of a log can bear.
 * What lies deeper than one level is left out: `JSON.stringify` follows a value
 * down until the stack is full.
 */
export function show(value: unknown): string {
  if (typeof value !== 'object' && typeof value !== 'string') return brief(String(value));
  let isTop = true;
  const shown = JSON.stringify(value, (_, inner: unknown) => {
    if (typeof inner === 'string') return inner.slice(0, 80);
    if (typeof inner !== 'object' || inner === null) return inner;
    if (!isTop) return Array.isArray(inner) ? '[...]' : '{...}';
    isTop = false;
    return inner;
  });
  const line = shown.length <= 80 ? shown : `${shown.slice(0, 77)}...`;
  // Those that JSON does not escape.
  return line.toWellFormed().replace(/\p{Cc}/gu, '?');
}
