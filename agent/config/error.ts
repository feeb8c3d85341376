import { type Code, CodedError } from '../util/coded-error.ts';

/** A configuration or a command line that cannot be used; the message is for the person who wrote it. */
export class ConfigError extends CodedError {
  override name = 'ConfigError';
  declare readonly code: Code & `config/${string}`;

  constructor(message: string, code: ConfigError['code'] = 'config/invalid', cause?: unknown) {
    super(code, message, { cause });
  }
}
