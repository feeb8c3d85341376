import { lookInterval, renewalOf, roundOf } from './doorbells/rates.ts';
import type { Plan } from './transport.ts';

/** Hears in one line how the watches are carried. @param isWhole all of them are followed */
export type Planned = (line: string, isWhole: boolean) => void;

/** Says how the watches are carried, and again when that has become another. */
export interface PlanReport {
  /** Something may have become another. */
  changed(): void;
  stop(): void;
}

/** What there is to say of the address that is asked now. */
export interface Planning {
  name: string;
  plan: Plan;
  /** Why a doorbell is not heard; undefined: all are. */
  deaf: string | undefined;
}

/** In which many changes become one look, in ms. */
const gathering = 1_000;

/** @param wait how long Consul may hold a query, in ms */
export function createPlanReport(
  current: () => Planning,
  wait: number,
  planned: Planned,
): PlanReport {
  let timer: NodeJS.Timeout | undefined;
  let said: { kind: string; followed: number } | undefined;

  function look(): void {
    timer = undefined;
    const planning = current();
    const { name, deaf } = planning;
    const { followed, left, connections, isCrowded } = planning.plan;
    if (followed + left === 0) return;
    const kind = `${name} ${connections !== undefined} ${left > 0} ${isCrowded} ${deaf}`;
    // A service more or less is no other plan.
    const isAlike =
      said !== undefined && followed <= 2 * said.followed && said.followed <= 2 * followed;
    if (kind === said?.kind && isAlike) return;
    said = { kind, followed };
    planned(describePlan(planning, wait), left === 0 && deaf === undefined);
  }

  return {
    changed() {
      timer ??= setTimeout(look, gathering).unref();
    },
    stop: () => clearTimeout(timer),
  };
}

function describePlan({ plan, deaf }: Planning, wait: number): string {
  const { followed, left, connections, isCrowded } = plan;
  const services = counted(followed, 'service');
  if (isCrowded) return `watches: ${services} by doorbells: ${describeBells(followed, deaf, wait)}`;
  const how =
    connections === undefined
      ? ', one connection each'
      : ` over HTTP/2 on ${counted(connections, 'connection')}`;
  const rest =
    left === 0 ? '' : `; ${left} more are not followed: consul.max_connections is too small`;
  return `watches: ${services}${how}${rest}`;
}

/** What it costs, and what would be better. */
function describeBells(followed: number, deaf: string | undefined, wait: number): string {
  const round = roundOf(followed);
  const within = ((lookInterval + round) / 1000).toFixed(1);
  const looks = Math.ceil((followed * 1000) / round);
  const reads = Math.ceil((followed * 1000) / renewalOf(followed, wait));
  const what =
    deaf === undefined
      ? `a check is heard at once, what else changes in ${within} s, for ${reads} reads a second ` +
        `and ${looks} looks while instances come and go`
      : `${deaf}: so all are looked at in turn, each once in ${within} s`;
  return `${what}; https:// or a higher consul.max_connections gives each a query of its own`;
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? '' : 's'}`;
}
