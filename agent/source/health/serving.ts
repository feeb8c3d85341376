import type { Peer, Peers } from '../../state/document.ts';

/**
 * How Consul sees an instance: the worst of its checks, or that it was taken out
 * by hand, or that it has no check of its own yet, and needs one.
 */
export type Health = 'passing' | 'warning' | 'critical' | 'unchecked' | 'maintenance';

/** From best to worst. */
const ranking: Health[] = ['passing', 'warning', 'critical', 'unchecked', 'maintenance'];

/** Never serve, whatever becomes of the others. */
const out: Health[] = ['unchecked', 'maintenance'];

/** An address that may serve, if its health allows it. */
export interface Candidate {
  address: string;
  health: Health;
  peer: Peer;
  /** Its weight while it is passing. */
  passing: number;
}

export interface HealthPolicy {
  /** The worst state that still serves. */
  min_health: 'passing' | 'warning';
  /** Percent healthy at or below which every registered instance serves; undefined: never. */
  panic_threshold: number | undefined;
}

interface Serving {
  peers: Peers;
  /** Too few are healthy, so health is not looked at. */
  panic: boolean;
}

/**
 * Which candidates serve.
 *
 * Of several instances on one address the healthiest counts, and of equals the
 * first, so that one of them may leave without taking the address along.
 * Maintenance never serves, nor what has no check yet, not even in a panic.
 */
export function serving(candidates: Candidate[], policy: HealthPolicy): Serving {
  const byAddress = new Map<string, Candidate>();
  for (const candidate of candidates) {
    const other = byAddress.get(candidate.address);
    if (other === undefined || rank(candidate) < rank(other)) {
      byAddress.set(candidate.address, candidate);
    }
  }
  const registered = [...byAddress.values()].filter(({ health }) => !out.includes(health));
  const worst = ranking.indexOf(policy.min_health);
  const acceptable = registered.filter((candidate) => rank(candidate) <= worst);
  const healthy = acceptable.filter((candidate) => !isWeighedOut(candidate));
  const percent = (100 * healthy.length) / Math.max(1, registered.length);
  const panic =
    policy.panic_threshold !== undefined &&
    healthy.length < registered.length &&
    percent <= policy.panic_threshold;
  const chosen = panic ? registered.map(inPanic) : acceptable;
  return { peers: Object.fromEntries(chosen.map(({ address, peer }) => [address, peer])), panic };
}

/** A warning takes all of its weight: it is there for its sticky sessions alone. */
function isWeighedOut({ health, peer }: Candidate): boolean {
  return health === 'warning' && peer.weight === 0;
}

function inPanic(candidate: Candidate): Candidate {
  const { peer, passing } = candidate;
  return isWeighedOut(candidate) ? { ...candidate, peer: { ...peer, weight: passing } } : candidate;
}

function rank(candidate: Candidate): number {
  return ranking.indexOf(candidate.health);
}
