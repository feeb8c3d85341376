import type { PeerChanges } from '../state/changes.ts';
import type { Change } from '../state/state.ts';
import type { Log } from './log.ts';

/** Writes a line for each change of the state that a person may want to know of. */
export function logChange(log: Log, change: Change): void {
  const { upstream } = change;
  if (change.kind === 'observed' && change.changes !== undefined) {
    const fields = { upstream, ...change.changes };
    log.info(fields, `${upstream}: ${describeChanges(change.changes)}`);
  }
  if (change.kind === 'held' || change.kind === 'believed') {
    log.warn({ upstream }, `${upstream}: ${change.why}`);
  }
}

/** @returns such as `+10.0.0.5:8080 -10.0.0.6:8080 ~10.0.0.7:8080` */
function describeChanges({ added, removed, changed }: PeerChanges): string {
  return [list('+', added), list('-', removed), list('~', changed)].flat().join(' ');
}

/** As many as a line of a log can bear. */
function list(sign: string, addresses: string[], most = 8): string[] {
  const shown = addresses.slice(0, most).map((address) => `${sign}${address}`);
  if (addresses.length > most) shown.push(`${sign}${addresses.length - most} more`);
  return shown;
}
