import type { Plan, Transport } from './transport.ts';

/** Hears in one line how the watches are carried. @param isWhole all of them are followed */
export type Planned = (line: string, isWhole: boolean) => void;

/** Says how the watches are carried, and again when that has become another. */
export interface PlanReport {
  /** Something may have become another. */
  changed(): void;
  stop(): void;
}

/** In which many changes become one look, in ms. */
const gathering = 1_000;

/** @param current the address that is asked now */
export function createPlanReport(current: () => Transport, planned: Planned): PlanReport {
  let timer: NodeJS.Timeout | undefined;
  let said: { kind: string; followed: number } | undefined;

  function look(): void {
    timer = undefined;
    const { name, plan } = current();
    const { followed, left, connections } = plan;
    if (followed + left === 0) return;
    const kind = `${name} ${connections !== undefined} ${left > 0}`;
    // A service more or less is no other plan.
    const isAlike =
      said !== undefined && followed <= 2 * said.followed && said.followed <= 2 * followed;
    if (kind === said?.kind && isAlike) return;
    said = { kind, followed };
    planned(describePlan(name, plan), left === 0);
  }

  return {
    changed() {
      timer ??= setTimeout(look, gathering).unref();
    },
    stop: () => clearTimeout(timer),
  };
}

function describePlan(name: string, { followed, left, connections }: Plan): string {
  const how =
    connections === undefined
      ? ', one connection each'
      : ` over HTTP/2 on ${counted(connections, 'connection')}`;
  const rest =
    left === 0
      ? ''
      : `; ${left} more are not followed: consul.max_connections is too small` +
        (connections === undefined ? `, and ${name} does not speak HTTP/2` : '');
  return `watches: ${counted(followed, 'service')}${how}${rest}`;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
