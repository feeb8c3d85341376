import type { Check, Shown } from './checks.ts';

/** Why a watch may have something to read. */
export interface Ring {
  /** A doorbell named it; its turn came in a sweep, and its index is another; or it is time to read it anyway. */
  why: 'bell' | 'sweep' | 'time';
  /** Whoever answers may show the past: the read must be consistent. */
  isUnsure?: boolean;
}

/** A watch that is carried by doorbells. */
export interface Listener {
  readonly service: string;
  /** What its last answer showed; undefined: there was none here. */
  shown: Shown | undefined;
  /** What rang while it did not wait: it may have been reading what there was before. */
  missed: Ring | undefined;
  /** While it waits. */
  waiting: Waiting | undefined;
}

interface Waiting {
  /** Of what it knows. */
  index: bigint;
  /** @param ring undefined: it is to be carried otherwise */
  end(ring: Ring | undefined): void;
  fail(error: unknown): void;
}

/** All watches that are carried by the doorbells of one address, by service. */
export interface Listeners {
  /** How many services there are. */
  readonly size: number;
  /** Whether one waits. */
  readonly isWaiting: boolean;
  /** The listener that the signal stands for, until it is aborted. */
  of(service: string, signal: AbortSignal): Listener;
  at(service: string): Iterable<Listener>;
  all(): Iterable<Listener>;
  services(): string[];
  /** Of the services, those that were changed last: what changes once may well change again. */
  recent(): string[];
  changed(service: string): void;
  /** Rings for each that a check may be of. */
  ring(check: Check): void;
}

/** Tells a listener, now or when it waits again. */
export function tell(listener: Listener, ring: Ring): void {
  if (listener.waiting !== undefined) listener.waiting.end(ring);
  else listener.missed = { ...ring, isUnsure: ring.isUnsure || listener.missed?.isUnsure === true };
}

/** So many services count as those that were changed last, */
const mostRecent = 50;
/** and not more than this share of all: the others have their turns too. */
const shareRecent = 1 / 12;

export function createListeners(): Listeners {
  const recent = new Set<string>();
  const bySignal = new Map<AbortSignal, Listener>();
  const byService = new Map<string, Set<Listener>>();

  function forget(signal: AbortSignal, listener: Listener): void {
    bySignal.delete(signal);
    const others = byService.get(listener.service);
    others?.delete(listener);
    if (others?.size !== 0) return;
    byService.delete(listener.service);
    recent.delete(listener.service);
  }

  return {
    get size() {
      return byService.size;
    },
    get isWaiting() {
      for (const { waiting } of bySignal.values()) if (waiting !== undefined) return true;
      return false;
    },
    of(service, signal) {
      const known = bySignal.get(signal);
      if (known !== undefined) return known;
      signal.throwIfAborted();
      const listener: Listener = {
        service,
        shown: undefined,
        missed: undefined,
        waiting: undefined,
      };
      bySignal.set(signal, listener);
      byService.set(service, (byService.get(service) ?? new Set()).add(listener));
      signal.addEventListener('abort', () => forget(signal, listener), { once: true });
      return listener;
    },
    at: (service) => byService.get(service) ?? [],
    all: () => bySignal.values(),
    services: () => [...byService.keys()],
    recent() {
      const most = Math.floor(byService.size * shareRecent);
      return [...recent].slice(Math.max(0, recent.size - most));
    },
    changed(service) {
      recent.delete(service);
      recent.add(service);
      const [oldest] = recent;
      if (recent.size > mostRecent && oldest !== undefined) recent.delete(oldest);
    },
    ring({ service, node }) {
      const all = service === '' ? bySignal.values() : (byService.get(service) ?? []);
      for (const listener of all) {
        if (service !== '' || listener.shown?.nodes.has(node)) tell(listener, { why: 'bell' });
      }
    },
  };
}
