import { type Code, CodedError } from '../util/coded-error.ts';
import type { Fault } from './left-out.ts';

export interface AdminErrorOptions {
  status?: number;
  faults?: Fault[];
  cause?: unknown;
}

/** The target could not be reached, or answered what it should not have. */
export class AdminError extends CodedError {
  override name = 'AdminError';
  declare readonly code: Code & `openresty/${string}`;
  /** undefined: no answer. */
  readonly status: number | undefined;
  /** What is wrong with a patch; empty where the target does not say. */
  readonly faults: Fault[];

  constructor(
    code: AdminError['code'],
    message: string,
    { status, faults = [], cause }: AdminErrorOptions = {},
  ) {
    super(code, message, { cause });
    this.status = status;
    this.faults = faults;
  }
}

/** What an answer of a status that was not asked for is called. */
export function codeOf(status: number): AdminError['code'] {
  if (status === 401 || status === 403) return 'openresty/refused';
  if (status === 412) return 'openresty/changed';
  if (status === 413 || status === 422) return 'openresty/invalid';
  if (status === 507) return 'openresty/full';
  return status >= 500 ? 'openresty/failed' : 'openresty/unusable';
}
