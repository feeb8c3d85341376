import type { FaultLog } from '../../telemetry/bounded.ts';

/** As many malformed instances as a line of the log can bear. */
const mostNamed = 5;

/** @returns a function that says what is odd about an answer, once as long as it stays so */
export function createReport(
  upstream: string,
  log: FaultLog,
): (malformed: string[], panic: boolean) => void {
  let warned = '';
  let panicked = false;
  return (malformed, panic) => {
    const more = malformed.length - mostNamed;
    const warning = malformed.slice(0, mostNamed).join('; ') + (more > 0 ? `; ${more} more` : '');
    if (warning !== '' && warning !== warned) {
      log.warn({ upstream }, `${upstream}: left out: ${warning}`);
    }
    warned = warning;
    if (panic && !panicked) {
      log.warn({ upstream }, `${upstream}: too few are healthy, so all registered ones serve`);
    }
    if (!panic && panicked) log.info({ upstream }, `${upstream}: enough are healthy again`);
    panicked = panic;
  };
}
