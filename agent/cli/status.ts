import { z } from 'zod';
import { type Flags, loadTargets } from '../config/resolve.ts';
import { type AdminClient, createAdminClient } from '../openresty/admin.ts';
import { entry } from '../state/document.ts';
import { override } from '../state/document-schema.ts';
import { reason } from '../telemetry/log.ts';
import { describeOverride } from './describe-override.ts';
import { columns, type Output } from './output.ts';

const statusSchema = z.looseObject({
  instance: z.string(),
  version: z.number(),
  source: z.string(),
  updated_at: z.string(),
  capacity: z.number(),
  free_space: z.number(),
  warning: z.string().optional(),
  agents: z.record(
    z.string(),
    z.looseObject({ id: z.string(), host: z.string(), pid: z.number(), since: z.string() }),
  ),
  upstreams: z.record(
    z.string(),
    z.looseObject({
      overrides: z.record(z.string(), override).optional(),
      peers: z.record(
        z.string(),
        z.looseObject({
          state: z.string(),
          weight: z.number(),
          backup: z.boolean().optional(),
          id: z.string().optional(),
          requests: z.number().optional(),
          failures: z.number().optional(),
          active: z.number().optional(),
        }),
      ),
    }),
  ),
});

export type Status = z.infer<typeof statusSchema>;

/**
 * Prints what is live in each target.
 *
 * @param json as the targets answered, in one JSON object by target
 * @returns the exit code: 1 when a target did not answer
 * @throws ConfigError
 */
export async function status(flags: Flags, json: boolean, output: Output): Promise<number> {
  let failed = false;
  const answers: [string, unknown][] = [];
  for (const { name, answer } of askAll(loadTargets(flags, process.env).map(createAdminClient))) {
    try {
      const whole = await answer;
      if (!json) for (const line of describe(name, whole)) output.out(line);
      answers.push([name, whole]);
    } catch (error) {
      output.err(`reloadless: ${reason(error)}`);
      failed = true;
    }
  }
  if (json) output.out(JSON.stringify(Object.fromEntries(answers), null, 2));
  return failed ? 1 : 0;
}

/**
 * Asks targets for their status, all at once: one that does not answer keeps
 * none of the others waiting.
 */
export function askAll(targets: AdminClient[]): { name: string; answer: Promise<unknown> }[] {
  return targets.map((target) => {
    const answer = target.status(AbortSignal.timeout(10_000)).finally(target.close);
    // It is waited for in turn, and may have failed by then.
    answer.catch(() => {});
    return { name: target.name, answer };
  });
}

function describe(target: string, answer: unknown): string[] {
  const status = readStatus(target, answer);
  return [
    `${target}  ${headline(status)}`,
    ...(status.warning === undefined ? [] : [`warning: ${status.warning}`]),
    ...columns([
      ['UPSTREAM', 'PEER', 'STATE', 'WEIGHT', 'REQUESTS', 'FAILURES', 'ACTIVE', 'ID', 'BY HAND'],
      ...rows(status),
    ]),
    '',
  ];
}

/** @throws Error when it is not what the admin endpoint answers */
export function readStatus(target: string, answer: unknown): Status {
  const parsed = statusSchema.safeParse(answer);
  if (!parsed.success) throw new Error(`${target}: the status is not one of Reloadless`);
  return parsed.data;
}

/** The table in one line. */
export function headline(status: Status): string {
  const { version, source, updated_at, capacity, free_space, instance, upstreams } = status;
  const room = `${mebibytes(free_space)} of ${mebibytes(capacity)} MiB free`;
  const many = Object.keys(upstreams).length;
  const count = `${many} ${many === 1 ? 'upstream' : 'upstreams'}`;
  return `version ${version} from ${source}, ${updated_at}, ${count}, ${room}, instance ${instance}`;
}

function rows({ upstreams }: Status): string[][] {
  return Object.entries(upstreams).flatMap(([name, { peers, overrides = {} }]) => {
    const all = Object.entries(peers);
    const said = (address: string) => {
      const override = entry(overrides, address);
      return override === undefined ? '' : describeOverride(override);
    };
    const waiting = Object.keys(overrides)
      .filter((address) => !Object.hasOwn(peers, address))
      .map((address) => [name, address, 'not there', '', '', '', '', '', said(address)]);
    if (all.length === 0 && waiting.length === 0) return [[name, 'no peers']];
    const rows = all.map(([address, peer]) => [
      name,
      address,
      peer.backup ? `${peer.state}, backup` : peer.state,
      ...[peer.weight, peer.requests, peer.failures, peer.active].map((n) => String(n ?? '-')),
      peer.id ?? '',
      said(address),
    ]);
    return [...rows, ...waiting];
  });
}

function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}
