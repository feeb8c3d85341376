import { type Code, CodedError } from '../util/coded-error.ts';

/** A snapshot that cannot be read, used or written. */
export class SnapshotError extends CodedError {
  override name = 'SnapshotError';
  declare readonly code: Code & `snapshot/${string}`;

  constructor(code: SnapshotError['code'], message: string, cause?: unknown) {
    super(code, message, { cause });
  }
}
