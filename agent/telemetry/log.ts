import { type DestinationStream, type Logger, pino } from 'pino';
import pretty from 'pino-pretty';
import type { Config } from '../config/config.ts';

export type Log = Logger;

/**
 * JSON lines, or text for people, on stdout unless another file is given. Both
 * write synchronously: no line is lost when the process ends.
 *
 * @param fd a file descriptor, 1 for stdout
 */
export function createLog({ level, format }: Config['log'], fd = 1): Log {
  const options = { level, base: null, serializers: { err: serializeError } };
  return pino(options, format === 'json' ? pino.destination({ fd, sync: true }) : forPeople(fd));
}

function forPeople(fd: number): DestinationStream {
  return pretty({
    destination: fd,
    sync: true,
    colorize: fd === 1 ? process.stdout.isTTY : process.stderr.isTTY,
    translateTime: 'HH:MM:ss.l',
    hideObject: true,
  });
}

/**
 * What may be said of an error. Errors of HTTP clients carry their request, and
 * with it the token, so only these fields are ever logged.
 */
function serializeError(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) };
  const { code, status, detail, pointer } = error as Error & Record<string, unknown>;
  const fields = { type: error.name, message: reason(error), code, status, detail, pointer };
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** One line that says why. Node's error for a name with several addresses has no message of its own. */
export function reason(error: unknown): string {
  if (error instanceof AggregateError && error.message === '') {
    return error.errors.map(reason).join(', ');
  }
  return error instanceof Error ? error.message : String(error);
}
