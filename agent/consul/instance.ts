import { isIP } from 'node:net';
import { z } from 'zod';
import { peerAddress } from '../table/address.ts';
import type { Peer } from '../table/document.ts';
import * as field from '../table/fields.ts';
import { refusal } from '../table/refusal.ts';
import type { Candidate, Health } from '../table/serving.ts';

/** What is used of one entry of `/v1/health/service`. */
export interface Instance {
  id: string;
  /** An IP address or a host name. */
  host: string;
  port: number;
  health: Health;
  peer: Peer;
}

export interface Instances {
  instances: Instance[];
  /** One line for each entry that cannot be used. */
  malformed: string[];
}

const weight = field.integer(0, 65_535);

const entrySchema = z.object({
  Node: z.object({ Node: z.string(), Address: z.string() }),
  Service: z.object({
    ID: field.text(1, 255),
    Address: z.string().optional(),
    Port: field.integer(1, 65_535),
    Weights: z.object({ Passing: weight, Warning: weight }).nullish(),
    Meta: z.record(z.string(), z.string()).nullish(),
  }),
  Checks: z.array(
    z.object({
      CheckID: z.string(),
      Status: z.enum(['passing', 'warning', 'critical'], 'passing, warning or critical'),
    }),
  ),
});

type Entry = z.infer<typeof entrySchema>;

/**
 * Reads the entries of an answer, in an order that does not depend on Consul's.
 * The address is the service's, else its node's (Consul's docs on service
 * registration). `zone` and `backup` are taken from the service's meta.
 */
export function readInstances(entries: unknown[]): Instances {
  const instances: { node: string; instance: Instance }[] = [];
  const malformed: string[] = [];
  for (const raw of entries) {
    const entry = entrySchema.safeParse(raw);
    if (entry.success) {
      instances.push({ node: entry.data.Node.Node, instance: toInstance(entry.data) });
    } else {
      malformed.push(`${nameOf(raw)}: ${refusal(entry.error, raw)}`);
    }
  }
  // An ID is unique on its node only.
  instances.sort((a, b) => order(a.instance.id, b.instance.id) || order(a.node, b.node));
  return { instances: instances.map(({ instance }) => instance), malformed };
}

/**
 * @param addresses of each host name; one without any is left out
 * @returns a candidate for each address, as nginx uses every address of a name
 */
export function toCandidates(
  instances: Instance[],
  addresses: ReadonlyMap<string, string[]>,
): Candidate[] {
  return instances.flatMap(({ host, port, health, peer }) => {
    const ips = isIP(host) === 0 ? (addresses.get(host) ?? []) : [host];
    return ips.flatMap((ip) => {
      const address = peerAddress(ip, port);
      return address === undefined ? [] : [{ address, health, peer }];
    });
  });
}

/** The host names among the instances. */
export function hostNames(instances: Instance[]): string[] {
  return [...new Set(instances.map(({ host }) => host).filter((host) => isIP(host) === 0))];
}

function toInstance({ Node, Service, Checks }: Entry): Instance {
  const health = aggregate(Checks);
  const weights = Service.Weights ?? { Passing: 1, Warning: 1 };
  const { zone, backup } = Service.Meta ?? {};
  const peer: Peer = {
    weight: health === 'warning' ? weights.Warning : weights.Passing,
    id: Service.ID,
  };
  if (zone !== undefined && field.zone.safeParse(zone).success) peer.zone = zone;
  if (backup === 'true') peer.backup = true;
  const host = Service.Address || Node.Address;
  return { id: Service.ID, host, port: Service.Port, health, peer };
}

/** The worst check counts; maintenance is a check of a reserved name (api.HealthChecks.AggregatedStatus). */
function aggregate(checks: Entry['Checks']): Health {
  if (checks.some(({ CheckID }) => isMaintenance(CheckID))) return 'maintenance';
  const has = (status: string) => checks.some(({ Status }) => Status === status);
  if (has('critical')) return 'critical';
  return has('warning') ? 'warning' : 'passing';
}

function isMaintenance(checkId: string): boolean {
  return checkId === '_node_maintenance' || checkId.startsWith('_service_maintenance:');
}

function nameOf(raw: unknown): string {
  const { Service, Node } = (raw ?? {}) as {
    Service?: { ID?: unknown };
    Node?: { Node?: unknown };
  };
  return `${Service?.ID ?? 'an instance'} on ${Node?.Node ?? 'an unknown node'}`;
}

function order(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}
