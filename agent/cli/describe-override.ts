import type { Override } from '../state/document.ts';
import { clip } from '../util/text.ts';

/** What is said of a peer by hand, in one line, such as `drain=true until 2026-01-31T12:00:00Z by eve@db: disk swap`. */
export function describeOverride({ expires_at, note, by, ...fields }: Override): string {
  const parts = Object.entries(fields).map(([name, value]) => `${name}=${String(value)}`);
  if (expires_at !== undefined) {
    parts.push(`until ${new Date(expires_at * 1000).toISOString().replace('.000', '')}`);
  }
  if (by !== undefined) parts.push(`by ${by}`);
  const line = parts.join(' ') + (note === undefined ? '' : `: ${note}`);
  // Somebody has written it: what would move the text of a terminal stays out.
  return clip(line, 1024).replace(/[\p{Cf}\p{Zl}\p{Zp}]/gu, '?');
}
