import { isIP } from 'node:net';
import { z } from 'zod';
import { peerAddress } from '../../state/address.ts';
import type { Balance } from '../../state/balances.ts';
import { entry, type Peer } from '../../state/document.ts';
import * as field from '../../state/field-checks.ts';
import { whyInvalid } from '../../util/invalid.ts';
import { brief, clip, show } from '../../util/text.ts';
import type { HealthConfig } from './config.ts';
import type { Health } from './serving.ts';
import { type OwnSettings, readSettings } from './settings.ts';

/** What is used of one entry of `/v1/health/service`. */
export interface Instance {
  id: string;
  /** An IP address or a host name. */
  host: string;
  port: number;
  health: Health;
  peer: Peer;
  /** Its weight while it is passing. */
  passing: number;
  /** How it wants its upstream to be balanced. */
  balance: Balance | undefined;
}

/** How the entries of an answer are to be read; what is absent is as usual. */
export type Reading = Partial<
  Pick<HealthConfig, 'port' | 'tagged_address' | 'require_check' | 'settings_from'>
>;

interface Instances {
  instances: Instance[];
  /** One line for each entry that cannot be used. */
  malformed: string[];
  /** One line for each setting of one that cannot be used. */
  faults: string[];
}

const weight = field.integer(0, 65_535);

const namedPort = z.object({
  Name: z.string(),
  Port: field.integer(1, 65_535),
  Default: z.boolean().optional(),
});

const tags = z.array(z.string()).nullish().catch(null);

const taggedAddress = z.object({ Address: z.string(), Port: field.integer(0, 65_535).optional() });

const entrySchema = z.object({
  Node: z.object({
    Node: z.string(),
    Address: z.string(),
    TaggedAddresses: z.unknown().optional(),
  }),
  Service: z.object({
    ID: field.expected<string>((value) => typeof value === 'string' && value !== '', 'a string'),
    Address: z.string().optional(),
    // 0 where a service has several: docs/discoveries/consul-ports.md
    Port: field.integer(0, 65_535).optional(),
    Ports: z.array(namedPort).nullish(),
    Weights: z.object({ Passing: weight, Warning: weight }).nullish(),
    Meta: z.record(z.string(), z.string()).nullish(),
    Tags: tags,
    TaggedAddresses: z.unknown().optional(),
  }),
  Checks: z.array(
    z.object({
      CheckID: z.string(),
      ServiceID: z.unknown().optional(),
      Status: z.enum(['passing', 'warning', 'critical'], 'passing, warning or critical'),
    }),
  ),
});

type Entry = z.infer<typeof entrySchema>;

/**
 * Reads the entries of an answer, in an order that does not depend on Consul's.
 * The address is the service's, else its node's (Consul's docs on service
 * registration).
 */
export function readInstances(entries: unknown[], reading: Reading = {}): Instances {
  const found: { node: string; instance: Instance; faults: string[] }[] = [];
  const malformed: string[] = [];
  for (const raw of entries) {
    const { data, error } = entrySchema.safeParse(raw);
    const place = data && placeOf(data, reading);
    const why = place === undefined ? whyInvalid(error as z.ZodError, raw) : unreachable(place);
    if (data === undefined || place === undefined || why !== undefined) {
      malformed.push(`${nameOf(raw)}: ${why}`);
      continue;
    }
    const { Meta, Tags } = data.Service;
    const own = readSettings(Meta ?? {}, Tags ?? [], reading.settings_from ?? ['meta']);
    const faults = own.faults.map((fault) => `${nameOf(raw)}: ${fault}`);
    const instance = toInstance(data, place, own, reading.require_check ?? false);
    found.push({ node: data.Node.Node, instance, faults });
  }
  // An ID is unique on its node only.
  found.sort((a, b) => order(a.instance.id, b.instance.id) || order(a.node, b.node));
  const instances = found.map(({ instance }) => instance);
  return { instances, malformed, faults: found.flatMap(({ faults }) => faults) };
}

/** Where an instance says that it is. */
interface Place {
  /** The field that says it. */
  field: string;
  host: string;
  port: number | undefined;
  /** Why there is no port. */
  noPort: string;
}

/** A tagged address comes first; one that the instance does not have is as none. */
function placeOf({ Node, Service }: Entry, { port: name, tagged_address }: Reading): Place {
  const port = portOf(Service, name);
  const usual = { port, noPort: whyNoPort(Service, name) };
  const tagged = taggedAddress.safeParse(member(Service.TaggedAddresses, tagged_address)).data;
  if (tagged !== undefined) {
    const field = `Service.TaggedAddresses.${tagged_address}`;
    return { ...usual, field, host: tagged.Address, port: tagged.Port || port };
  }
  if (Service.Address) return { ...usual, field: 'Service.Address', host: Service.Address };
  const ofNode = member(Node.TaggedAddresses, tagged_address);
  if (typeof ofNode === 'string') {
    return { ...usual, field: `Node.TaggedAddresses.${tagged_address}`, host: ofNode };
  }
  return { ...usual, field: 'Node.Address', host: Node.Address };
}

/** @returns what anything has of that name; undefined: nothing */
function member(thing: unknown, name: string | undefined): unknown {
  if (name === undefined || !field.isObject(thing)) return undefined;
  return entry(thing as Record<string, unknown>, name);
}

/** @param name of one of several ports @returns undefined when it has none, or none of that name */
function portOf({ Port, Ports }: Entry['Service'], name: string | undefined): number | undefined {
  const several = Ports ?? [];
  if (name !== undefined) return several.find(({ Name }) => Name === name)?.Port;
  if (Port !== undefined && Port > 0) return Port;
  const only = several.length === 1 ? several[0] : undefined;
  return (several.find(({ Default }) => Default === true) ?? only)?.Port;
}

function whyNoPort({ Port, Ports }: Entry['Service'], name: string | undefined): string {
  const names = brief((Ports ?? []).map(({ Name }) => Name).join(', '));
  if (name !== undefined) return `no port is named ${show(name)}: it has ${names || 'none'}`;
  if (names !== '') return `none of the ports ${names} is the default one`;
  return `Service.Port: ${show(Port)} is not an integer from 1 to 65535`;
}

/** @returns why nginx cannot be told to connect to it; undefined: it can */
function unreachable({ field: where, host, port, noPort }: Place): string | undefined {
  if (port === undefined) return noPort;
  const isAddress = isIP(host) !== 0 && peerAddress(host, port) !== undefined;
  if (isAddress || isHostName(host)) return undefined;
  return `${where}: ${show(host)} is not a host name or an IP address without a zone`;
}

/** Of any script: the resolver turns it into ASCII. */
function isHostName(text: string): boolean {
  return text.length <= 253 && /^[\p{L}\p{M}\p{N}._-]+$/u.test(text);
}

function toInstance(
  { Service, Checks }: Entry,
  { host, port = 0 }: Place,
  own: OwnSettings,
  requireCheck: boolean,
): Instance {
  const isUnchecked = requireCheck && !Checks.some(({ ServiceID }) => ServiceID === Service.ID);
  const health = aggregate(Checks, isUnchecked);
  const weights = Service.Weights ?? { Passing: 1, Warning: 1 };
  const peer: Peer = {
    weight: health === 'warning' ? weights.Warning : weights.Passing,
    // For people only, so it may be shortened.
    id: clip(Service.ID, 255),
    ...own.peer,
  };
  const { weight: passing = weights.Passing } = own.peer;
  return { id: Service.ID, host, port, health, peer, passing, balance: own.balance };
}

/** The worst check counts; maintenance is a check of a reserved name (api.HealthChecks.AggregatedStatus). */
function aggregate(checks: Entry['Checks'], isUnchecked: boolean): Health {
  if (checks.some(({ CheckID }) => isMaintenance(CheckID))) return 'maintenance';
  if (isUnchecked) return 'unchecked';
  const has = (status: string) => checks.some(({ Status }) => Status === status);
  if (has('critical')) return 'critical';
  return has('warning') ? 'warning' : 'passing';
}

function isMaintenance(checkId: string): boolean {
  return checkId === '_node_maintenance' || checkId.startsWith('_service_maintenance:');
}

/** Only text is shown: to turn an object into text may call what it holds. */
function nameOf(raw: unknown): string {
  const { Service, Node } = (raw ?? {}) as {
    Service?: { ID?: unknown } | null;
    Node?: { Node?: unknown } | null;
  };
  return `${textOr(Service?.ID, 'an instance')} on ${textOr(Node?.Node, 'an unknown node')}`;
}

function textOr(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? brief(value) : otherwise;
}

function order(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
