/** One of the checks that `/v1/health/state` lists. */
export interface Check {
  /** Of a check of the whole node, none. */
  service: string;
  node: string;
  /** Another one whenever Consul has written the check. */
  modified: unknown;
}

interface RawCheck {
  Node?: unknown;
  CheckID?: unknown;
  ServiceName?: unknown;
  Status?: unknown;
  ModifyIndex?: unknown;
}

interface RawEntry {
  Node?: { Node?: unknown } | null;
  Checks?: (RawCheck | null)[] | null;
}

/** What an answer of `/v1/health/state` lists, each check by its name. */
export function listedChecks(list: unknown[]): Map<string, Check> {
  const checks = (list as (RawCheck | null)[]).filter((one) => one !== null);
  return new Map(
    checks.map((check) => {
      const { ServiceName: service, Node: node, ModifyIndex: modified } = check;
      return [nameOf(check), { service: textOf(service), node: textOf(node), modified }];
    }),
  );
}

/** Those that have come, have been written again, or have gone. */
export function otherChecks(
  before: ReadonlyMap<string, Check>,
  after: ReadonlyMap<string, Check>,
): Check[] {
  const come = [...after].filter(([name, { modified }]) => before.get(name)?.modified !== modified);
  const gone = [...before].filter(([name]) => !after.has(name));
  return [...come, ...gone].map(([, check]) => check);
}

/** What an answer of `/v1/health/service` shows that a doorbell may ring for. */
export interface Shown {
  nodes: ReadonlySet<string>;
  /** The state of each check that is not passing, by its name. */
  unwell: ReadonlyMap<string, unknown>;
}

/** @param entries as Consul sent them: what is malformed is passed over */
export function shownBy(entries: unknown[]): Shown {
  const nodes = new Set<string>();
  const unwell = new Map<string, unknown>();
  for (const entry of entries as (RawEntry | null)[]) {
    nodes.add(textOf(entry?.Node?.Node));
    if (!Array.isArray(entry?.Checks)) continue;
    for (const check of entry.Checks) {
      if (check !== null && check.Status !== 'passing') unwell.set(nameOf(check), check.Status);
    }
  }
  return { nodes, unwell };
}

/** To turn an object into text may call what it holds. */
function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}

/** A check's ID is unique on its node only. */
function nameOf({ Node, CheckID }: RawCheck): string {
  return JSON.stringify([Node, CheckID]);
}
