import type { FaultLog } from '../telemetry/bounded.ts';

/** As many as a line of the log can bear. */
const mostNamed = 5;
/** So many are kept, so that each is said once. */
const mostKept = 1000;

/**
 * @param what is said of the lines, such as `left out`
 * @returns a function that says what is odd about an answer: each line once, as long as it stays so
 */
export function createReport(
  upstream: string,
  what: string,
  log: FaultLog,
): (lines: readonly string[]) => void {
  let said = new Set<string>();
  return (lines) => {
    const kept = lines.slice(0, mostKept);
    const fresh = kept.filter((line) => !said.has(line));
    said = new Set(kept);
    if (fresh.length === 0) return;
    const more = lines.length - kept.length + fresh.length - mostNamed;
    const named = fresh.slice(0, mostNamed).join('; ') + (more > 0 ? `; ${more} more` : '');
    log.warn({ upstream }, `${upstream}: ${what}: ${named}`);
  };
}
