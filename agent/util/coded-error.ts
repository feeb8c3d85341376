import { backoff } from './backoff.ts';

/** How soon work that goes on tries again after the nth failure in a row, in ms. */
const pauses = {
  /** A fight with another writer is left to cool down in the end. */
  'at once': (failures: number) => (failures <= 10 ? 0 : backoff(failures - 10, 200, 10_000)),
  /** What is near, and is back in a moment; or a token that may be replaced. */
  soon: (failures: number) => backoff(failures, 100, 1_000),
  later: (failures: number) => backoff(failures, 100, 10_000),
  slowly: (failures: number) => backoff(failures, 1_000, 30_000),
  /** Somebody has to change something first. */
  rarely: () => 30_000 + backoff(1, 30_000, 30_000),
};

interface Handling {
  /** It may be over in a second by itself, so that work that ends tries again too. */
  passes: boolean;
  again: keyof typeof pauses;
}

/** Every code, and what is done about it; docs/errors.md says what each means. */
export const codes = {
  'config/invalid': { passes: false, again: 'slowly' },
  'config/unreadable': { passes: false, again: 'slowly' },
  'consul/unreachable': { passes: true, again: 'later' },
  'consul/closed': { passes: true, again: 'later' },
  'consul/silent': { passes: true, again: 'at once' },
  'consul/timeout': { passes: true, again: 'later' },
  'consul/cut-off': { passes: true, again: 'later' },
  'consul/failed': { passes: true, again: 'later' },
  'consul/busy': { passes: true, again: 'later' },
  'consul/unusable': { passes: true, again: 'later' },
  'consul/refused': { passes: false, again: 'later' },
  'consul/filtered': { passes: false, again: 'later' },
  'consul/invalid': { passes: false, again: 'rarely' },
  'consul/too-many': { passes: false, again: 'rarely' },
  'consul/blind': { passes: false, again: 'slowly' },
  'consul/no-instance': { passes: true, again: 'slowly' },
  'openresty/unreachable': { passes: true, again: 'soon' },
  'openresty/failed': { passes: true, again: 'later' },
  'openresty/unusable': { passes: true, again: 'later' },
  'openresty/refused': { passes: false, again: 'soon' },
  'openresty/changed': { passes: true, again: 'at once' },
  'openresty/invalid': { passes: false, again: 'later' },
  'openresty/full': { passes: false, again: 'later' },
  'snapshot/damaged': { passes: false, again: 'slowly' },
  'snapshot/unreadable': { passes: false, again: 'slowly' },
  'snapshot/unwritten': { passes: false, again: 'slowly' },
} as const satisfies Record<string, Handling>;

export type Code = keyof typeof codes;

/** An error that we know: what it is called stays the same, whatever its message says. */
export class CodedError extends Error {
  readonly code: Code;

  constructor(code: Code, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
  }
}

/** Whether work that ends should try again; never after a fault of ours. */
export function passes(error: unknown): boolean {
  return error instanceof CodedError && codes[error.code].passes;
}

/**
 * @param failures in a row, from 1
 * @returns how long work that goes on waits before it tries again, in ms
 */
export function pauseAfter(error: unknown, failures: number): number {
  const again = error instanceof CodedError ? codes[error.code].again : 'slowly';
  return pauses[again](failures);
}
