import { createHash } from 'node:crypto';
import { hostname } from 'node:os';
import type { Config } from '../config/config.ts';
import type { Log } from '../telemetry/log.ts';
import type { AdminClient, Taken } from './admin.ts';
import { AdminError } from './error.ts';

/** Who an agent is, as `PUT /v1/agents/{owner}` takes it. */
export interface Identity {
  /** The same for all agents of the same configuration. */
  id: string;
  host: string;
  pid: number;
  /** ISO 8601. */
  since: string;
}

export interface Owner {
  owner: string;
  identity: Identity;
}

export interface Lease {
  /**
   * Takes the lease, or renews it in time.
   *
   * @returns whether the target's upstreams are ours to change; else an agent of
   *   another configuration has them, which the log has said
   * @throws AdminError when it cannot be told
   */
  hold(signal: AbortSignal): Promise<boolean>;
  /** `hold` would ask the target now. */
  isDue(): boolean;
  /** The ETag of the target's document when the lease was taken last, if it said so. */
  readonly etag: string | undefined;
  /** It is ours and will be for a while, so that a change need not wait for its renewal. */
  isSure(): boolean;
  /** The target is another one, which knows of no lease of ours. */
  lose(): void;
  /** Gives it back; what goes wrong is of no matter, since it ends by itself. */
  release(): Promise<void>;
}

/**
 * Between two renewals, in ms: a lease ends 10 s after the last. A little less
 * than three looks at the target, so that each third look renews it.
 */
const renewInterval = 2_900;

/** How long after it was taken nobody else can have it, in ms, with time for a push. */
const sureFor = 6_000;

/** Between two looks whether another agent still has it, in ms. */
const waitingInterval = 1_000;

/** For giving it back, in ms: an agent that is told to end does so within a second. */
const releaseTimeout = 300;

const since = new Date().toISOString();

/**
 * Two configurations that want the same of the same Consul are one: their agents
 * may run side by side.
 */
export function identify({ consul, owner, upstreams, discover }: Config): Owner {
  const { endpoints, datacenter, namespace } = consul;
  const addresses = endpoints.map(({ name }) => name).join(' ');
  const set = [[...upstreams].toSorted(), discover];
  const wanted = [addresses, datacenter, namespace, owner, ...set];
  const id = createHash('sha256').update(JSON.stringify(wanted)).digest('hex').slice(0, 32);
  return { owner, identity: { id, host: hostname(), pid: process.pid, since } };
}

/** One target's lease of our owner. @param who may change from call to call */
export function createLease(client: AdminClient, who: () => Owner, log: Log): Lease {
  let held: Owner | undefined;
  let asked: Owner | undefined;
  let askedAt = Number.NEGATIVE_INFINITY;
  let etag: string | undefined;
  /** What the log has said of the holder. */
  let reported: string | undefined;

  function report(owner: string, holder: Identity | undefined): void {
    const text = holder === undefined ? undefined : describeHolder(owner, holder);
    if (text === reported) return;
    reported = text;
    if (text === undefined) log.info(`${client.name}: the other agent has gone: going on`);
    else log.error({ holder }, `${client.name}: ${text}; waiting, nothing is pushed`);
  }

  function isDue(): boolean {
    const pause = held === undefined ? waitingInterval : renewInterval;
    return who() !== asked || performance.now() >= askedAt + pause;
  }

  async function release(): Promise<void> {
    if (held === undefined) return;
    const { owner, identity } = held;
    held = undefined;
    await client.dropLease(owner, identity.id, AbortSignal.timeout(releaseTimeout)).catch(() => {});
  }

  return {
    async hold(signal) {
      if (!isDue()) return held !== undefined;
      const wanted = who();
      if (held?.owner !== wanted.owner || held.identity.id !== wanted.identity.id) await release();
      // The target may have given it long before its answer came.
      const began = performance.now();
      const taken = await take(client, wanted, signal);
      const { holder } = taken;
      report(wanted.owner, holder);
      etag = taken.etag;
      asked = wanted;
      askedAt = began;
      held = holder === undefined ? wanted : undefined;
      return held !== undefined;
    },
    isDue,
    get etag() {
      return etag;
    },
    lose() {
      held = undefined;
      askedAt = Number.NEGATIVE_INFINITY;
    },
    isSure: () => held !== undefined && held === who() && performance.now() < askedAt + sureFor,
    release,
  };
}

async function take(
  client: AdminClient,
  { owner, identity }: Owner,
  signal: AbortSignal,
): Promise<Taken> {
  try {
    return await client.takeLease(owner, identity, signal);
  } catch (error) {
    // An older Reloadless in nginx knows no leases, a full dict has no room for one.
    if (error instanceof AdminError && [404, 507].includes(error.status ?? 0)) return {};
    throw error;
  }
}

/** What to say of an agent that keeps us from changing anything. */
export function describeHolder(owner: string, { pid, host, since }: Identity): string {
  return `another agent with owner ${owner} and another configuration is alive (pid ${pid} on ${host}, since ${since}); give each its own owner, or stop one`;
}
