import { parseDuration } from '../config/duration.ts';
import { entry, type Peer } from '../state/document.ts';
import * as schema from '../state/document-schema.ts';
import { whyInvalid } from '../util/invalid.ts';

/** Turns a value as people write it into one of the document, where it can. */
type Reader = (value: unknown) => unknown;

const integer: Reader = (value) => {
  return typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : value;
};
const duration: Reader = (value) => integer(parseDuration(value) ?? value);
const flag: Reader = (value) => {
  if (value === 1 || value === '1' || value === 'true') return true;
  return value === 0 || value === '0' || value === 'false' ? false : value;
};
const text: Reader = (value) => value;

const readers: Readonly<Record<keyof Peer, Reader>> = {
  weight: integer,
  backup: flag,
  drain: flag,
  down: flag,
  id: text,
  zone: text,
  max_conns: integer,
  slow_start: duration,
  max_fails: integer,
  fail_timeout: duration,
};

export interface Fields {
  peer: Peer;
  /** One line for each value that cannot be used. */
  faults: string[];
}

/**
 * Reads fields of a peer that somebody has written in Consul: numbers may be text,
 * times may have a unit, `1` is true, and null is as absent.
 *
 * @param written by name
 */
export function readFields(written: Iterable<[name: string, value: unknown]>): Fields {
  const peer: Peer = {};
  const faults: string[] = [];
  for (const [name, value] of written) {
    if (value === null) continue;
    const read = entry(readers, name) ?? text;
    const field = Object.fromEntries([[name, read(value)]]);
    const { data, error } = schema.peer.safeParse(field);
    if (error === undefined) Object.assign(peer, data);
    else faults.push(whyInvalid(error, field));
  }
  return { peer, faults };
}
