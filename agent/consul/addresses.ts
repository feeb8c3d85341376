import { ConsulError } from './error.ts';
import type { Transport } from './transport.ts';

/** The addresses of one Consul, of which one is asked. */
export interface Addresses {
  /** The one that is asked now. */
  readonly current: Transport;
  /**
   * Asks there. When that fails for what may lie in the address, the next
   * request goes to the next one.
   *
   * @param probe asks the first one whether it is well again, where another is used
   * @throws what `request` throws
   */
  ask<T>(
    request: (transport: Transport) => Promise<T>,
    probe?: (first: Transport) => Promise<unknown>,
  ): Promise<T>;
}

/** Hears once which address is used from now on. @param why the one before it is not; undefined: the first is back */
export type Moved = (name: string, why: string | undefined) => void;

/** Between two looks whether the first is well again, in ms; longer when it was not well for long. */
const shortest = 10_000;
const longest = 300_000;

/** Of the errors, those that another address may not have. */
const local: ConsulError['code'][] = [
  'consul/unreachable',
  'consul/closed',
  'consul/timeout',
  'consul/cut-off',
  'consul/failed',
  'consul/busy',
  'consul/unusable',
];

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

  function failed(at: Transport, error: unknown): void {
    if (at !== current || !(error instanceof ConsulError) || !local.includes(error.code)) return;
    current = transports[transports.indexOf(at) + 1] ?? first;
    if (current === at) return;
    why = error.message;
    if (at !== first) return;
    const now = performance.now();
    pause = now - backSince > longest ? shortest : Math.min(longest, pause * 2);
    probeAt = now + pause;
  }

  function answered(at: Transport): void {
    if (at !== current || at === told) return;
    told = at;
    moved(at.name, at === first ? undefined : why);
  }

  async function tryFirst(probe: (first: Transport) => Promise<unknown>): Promise<void> {
    if (current === first || isProbing || performance.now() < probeAt) return;
    isProbing = true;
    try {
      await probe(first);
      current = first;
      backSince = performance.now();
      answered(first);
    } catch {
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
        failed(at, error);
        throw error;
      }
    },
  };
}
