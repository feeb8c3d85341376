import type { ConsulError } from '../consul/error.ts';
import type { FaultLog } from './bounded.ts';

export interface Outage {
  failed(upstream: string, error: ConsulError): void;
  answered(upstream: string): void;
  /** The upstream is not followed any more. */
  forget(upstream: string): void;
}

/** Says once that Consul fails, and once that it is over, however many upstreams notice it. */
export function createOutage(log: FaultLog): Outage {
  const failing = new Map<string, string>();
  return {
    failed(upstream, error) {
      const { message } = error;
      const known = [...failing.values()].includes(message);
      failing.set(upstream, message);
      const fields = { upstream, err: error };
      const line = `${upstream}: ${message}: its peers stay, trying again`;
      if (known) log.debug(fields, line);
      else log.error(fields, line);
    },
    answered(upstream) {
      const message = failing.get(upstream);
      if (!failing.delete(upstream) || [...failing.values()].includes(message ?? '')) return;
      log.info({ upstream }, `${upstream}: answered again after: ${message}`);
    },
    forget: (upstream) => failing.delete(upstream),
  };
}
