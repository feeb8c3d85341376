import { ConsulError } from './error.ts';
import type { Transport } from './transport.ts';

/** The addresses of one Consul, of which one is asked. */
export interface Addresses {
  /** The one that is asked now. */
  readonly current: Transport;
  /**
   * Asks there. When that fails for what lies in the address, the next request
   * goes to the next one; for what may lie in the request, to one that answers it.
   *
   * @param probe asks the same of another one: of the first, whether it is well
   *   again; without it a failure of the request moves nothing
   * @throws what `request` throws
   */
  ask<T>(request: (transport: Transport) => Promise<T>, probe?: Probe): Promise<T>;
}

type Probe = (transport: Transport) => Promise<unknown>;

/** Hears once which address is used from now on. @param why the one before it is not; undefined: the first is back */
export type Moved = (name: string, why: string | undefined) => void;

/** Between two looks whether the first is well again, in ms; longer when it was not well for long. */
const shortest = 10_000;
const longest = 300_000;

/** Of the errors, those of an address. */
const ofAddress: ConsulError['code'][] = [
  'consul/unreachable',
  'consul/closed',
  'consul/timeout',
  'consul/cut-off',
  'consul/busy',
];

/** Those that one request may have everywhere, while all others are answered. */
const ofRequest: ConsulError['code'][] = ['consul/failed', 'consul/unusable'];

/** Of the first, those after which what it holds is as good as lost. */
const gone: ConsulError['code'][] = ['consul/unreachable', 'consul/closed', 'consul/timeout'];

/**
 * Tries several addresses in turn, and goes back to the first when it is well.
 * Whether it is, a request of its own shows, for which nobody waits.
 *
 * @param transports at least one, by rank
 */
export function createAddresses(transports: readonly Transport[], moved: Moved): Addresses {
  const [first] = transports as [Transport];
  let current = first;
  /** The one that has been told last. */
  let told = first;
  let why: string | undefined;
  let isProbing = false;
  let pause = shortest;
  let backSince = Number.NEGATIVE_INFINITY;
  let probeAt = 0;

  function leave(at: Transport, to: Transport, error: ConsulError): void {
    if (at !== current || to === at) return;
    current = to;
    why = error.message;
    if (gone.includes(error.code)) at.rouse();
    if (at !== first) return;
    const now = performance.now();
    pause = now - backSince > longest ? shortest : Math.min(longest, pause * 2);
    probeAt = now + pause;
  }

  function failed(at: Transport, error: unknown, probe: Probe | undefined): void {
    if (!(error instanceof ConsulError)) return;
    const others = othersThan(at);
    if (ofAddress.includes(error.code)) leave(at, others[0] ?? at, error);
    if (ofRequest.includes(error.code) && probe !== undefined) look(at, others, error, probe);
  }

  /** All but this one, in turn. */
  function othersThan(at: Transport): Transport[] {
    const place = transports.indexOf(at);
    return [...transports.slice(place + 1), ...transports.slice(0, place)];
  }

  /** Goes to the first of the others that answers what this one does not. */
  async function look(
    at: Transport,
    others: Transport[],
    error: ConsulError,
    probe: Probe,
  ): Promise<void> {
    if (at !== current || isProbing) return;
    isProbing = true;
    for (const other of others) {
      const isWell = await probe(other).then(yes, no);
      if (isWell) {
        leave(at, other, error);
        break;
      }
    }
    isProbing = false;
  }

  function answered(at: Transport): void {
    if (at !== current || at === told) return;
    told = at;
    moved(at.name, at === first ? undefined : why);
  }

  async function tryFirst(probe: Probe): Promise<void> {
    if (current === first || isProbing || performance.now() < probeAt) return;
    isProbing = true;
    const isWell = await probe(first).then(yes, no);
    if (isWell) {
      current = first;
      backSince = performance.now();
      answered(first);
    } else {
      probeAt = performance.now() + pause;
    }
    isProbing = false;
  }

  return {
    get current() {
      return current;
    },
    async ask(request, probe) {
      if (probe !== undefined) tryFirst(probe);
      const at = current;
      try {
        const answer = await request(at);
        answered(at);
        return answer;
      } catch (error) {
        failed(at, error, probe);
        throw error;
      }
    },
  };
}

function yes(): boolean {
  return true;
}

function no(): boolean {
  return false;
}
