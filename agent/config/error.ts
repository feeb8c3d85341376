import { type Code, CodedError } from '../util/coded-error.ts';

/**
 * A configuration or a command line that cannot be used; each fault is a line
 * for the person who wrote it.
 */
export class ConfigError extends CodedError {
  override name = 'ConfigError';
  declare readonly code: Code & `config/${string}`;
  readonly faults: string[];

  /** @param faults one or several */
  constructor(
    faults: string | string[],
    code: ConfigError['code'] = 'config/invalid',
    cause?: unknown,
  ) {
    const all = [faults].flat();
    super(code, all.join('; '), { cause });
    this.faults = all;
  }
}
