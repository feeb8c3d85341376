import type { ConsulError } from '../consul/error.ts';
import type { FaultLog } from './bounded.ts';

export interface Outage {
  failed(upstream: string, error: ConsulError): void;
  answered(upstream: string): void;
  /** The upstream is not followed any more. */
  forget(upstream: string): void;
}

/** Of the messages of one upstream: several addresses may fail in turn. */
const mostKept = 8;

/** Says once that Consul fails, and once that it is over, however many upstreams notice it. */
export function createOutage(log: FaultLog): Outage {
  /** What each upstream has failed with since its last answer, the latest last. */
  const failing = new Map<string, string[]>();

  function isKnown(message: string): boolean {
    return [...failing.values()].some((messages) => messages.includes(message));
  }

  return {
    failed(upstream, error) {
      const { message } = error;
      const known = isKnown(message);
      const others = (failing.get(upstream) ?? []).filter((other) => other !== message);
      failing.set(upstream, [...others, message].slice(-mostKept));
      const fields = { upstream, err: error };
      const line = `${upstream}: ${message}: its peers stay, trying again`;
      if (known) log.debug(fields, line);
      else log.error(fields, line);
    },
    answered(upstream) {
      const message = failing.get(upstream)?.at(-1);
      failing.delete(upstream);
      if (message === undefined || isKnown(message)) return;
      log.info({ upstream }, `${upstream}: answered again after: ${message}`);
    },
    forget: (upstream) => failing.delete(upstream),
  };
}
