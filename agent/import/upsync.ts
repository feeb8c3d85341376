import { readEndpoint } from '../config/address.ts';
import { entry } from '../state/document.ts';
import type { Defaults } from './server.ts';
import type { Service } from './service.ts';
import { nameOf, type Statement } from './statements.ts';

export interface Upsync {
  statement: Statement;
  /** undefined: its peers come from elsewhere, which is said. */
  service: Service | undefined;
  /** Of the keys that its peers are in; undefined: they are in none. */
  prefix: string | undefined;
  consul: string | undefined;
  defaults: Defaults;
}

/** What upsync takes where a peer says nothing of failures; nginx takes one failure. */
const defaults: Defaults = { max_fails: 2 };

/**
 * Reads the `upsync` directive of nginx-upsync-module.
 *
 * @param lost hears of what is not carried over
 * @returns also when its peers come from elsewhere: what stands in the block is
 *   no peer then either
 */
export function readUpsync(
  statement: Statement,
  lost: (statement: Statement, what: string, why: string) => void,
): Upsync {
  const [address = '', ...rest] = statement.args;
  const none = { statement, service: undefined, prefix: undefined, defaults };
  const [, host, kind, path = ''] =
    /^([^/]+)\/v1\/(kv|catalog\/service|health\/service)\/(.+?)\/?$/.exec(address) ?? [];
  const type = rest.find((text) => text.startsWith('upsync_type='))?.slice(12) ?? 'consul';
  const forms: Record<string, string> = {
    consul: 'kv',
    consul_services: 'catalog/service',
    consul_health: 'health/service',
  };
  if (host === undefined || entry(forms, type) !== kind) {
    lost(statement, nameOf(statement), `${type}: only Consul is a source`);
    return { ...none, consul: undefined };
  }
  const consul = `http://${host}`;
  if (readEndpoint(consul) === undefined) {
    lost(statement, nameOf(statement), `"${host}" is not the address of a Consul`);
    return { ...none, consul: undefined };
  }
  if (kind === 'kv') return { ...none, prefix: `${path}/`, consul };
  const [, service = '', tag] = /^([\w.-]+)(?:\?tag=([\w.-]+))?$/.exec(path) ?? [];
  if (service === '') {
    lost(statement, nameOf(statement), `"${path}" is not the name of a service`);
    return { ...none, consul };
  }
  if (kind === 'catalog/service') {
    const why = 'it takes every instance; here those that are critical never serve';
    lost(statement, nameOf(statement), why);
  }
  return {
    ...none,
    service: {
      service,
      tags: tag === undefined ? [] : [tag],
      // Whatever is not passing is down to upsync's kind for health.
      ...(kind === 'health/service' && { min_health: 'passing' as const }),
      lost: [],
    },
    consul,
  };
}
