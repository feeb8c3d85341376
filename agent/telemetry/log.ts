import { createRequire } from 'node:module';
import { type Logger, pino } from 'pino';
import type { Config } from '../config/config.ts';
import { CodedError } from '../util/coded-error.ts';
import { stdout } from './writer.ts';

export type Log = Logger;

/** What may wait for a reader that is slow, in bytes. */
const mostWaiting = 2 ** 20;

/**
 * JSON lines, or text for people, on stdout. Lines that cannot be written are
 * counted, and the log says so as soon as it can be written again.
 */
export function createLog({ level, format }: Config['log']): Log {
  const shaped = format === 'json' ? (line: string) => line : shapeForPeople();
  let lost = 0;
  let why = '';
  /** How many lines are lost with the one that is written now. */
  let worth = 1;

  function lose(lines: number, because: string): void {
    lost += lines;
    why = because;
  }

  function write(line: string): void {
    const lines = worth;
    if (stdout.waiting() > mostWaiting) {
      lose(lines, 'its reader is too slow');
      return;
    }
    stdout.write(shaped(line), (error) => {
      if (error) lose(lines, reason(error));
      else if (lost > 0 && stdout.waiting() === 0) sayLost();
    });
  }

  function sayLost(): void {
    worth = lost;
    lost = 0;
    log.error(`${worth} lines of this log could not be written: ${why}`);
    worth = 1;
  }

  const options = {
    level,
    base: null,
    serializers: { err: serializeError },
    formatters: { log: withCode },
  };
  const log = pino(options, { write });
  return log;
}

function shapeForPeople(): (line: string) => string {
  // Only here: it takes 2 MiB.
  const pretty: typeof import('pino-pretty') = createRequire(import.meta.url)('pino-pretty');
  return pretty.prettyFactory({
    colorize: process.stdout.isTTY,
    translateTime: 'HH:MM:ss.l',
    hideObject: true,
  });
}

/** A line about an error that we know has its code, for those who look for it. */
function withCode(fields: Record<string, unknown>): Record<string, unknown> {
  return fields.err instanceof CodedError ? { code: fields.err.code, ...fields } : fields;
}

/**
 * What may be said of an error. Errors of HTTP clients carry their request, and
 * with it the token, so only these fields are ever logged.
 */
function serializeError(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, status, detail, cause } = error as Error & Record<string, unknown>;
  const fields = {
    type: error.name,
    message: reason(error),
    code,
    status,
    detail,
    cause: cause === undefined ? undefined : serializeError(cause),
  };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** One line that says why. Node's error for a name with several addresses has no message of its own. */
export function reason(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') {
    return error.errors.map(reason).join(', ');
  }
  return error instanceof Error ? error.message : String(error);
}
