import { randomBytes } from 'node:crypto';
import { ConsulError } from './error.ts';
import { kvPath, type Place, pathOf, type Request, type Transport } from './transport.ts';

/** What a token may be allowed to read. */
export interface Readable {
  resource: 'service' | 'node' | 'key';
  /** Of a node, none: every node that no rule of its own forbids. Of keys, what they begin with. */
  name: string;
}

/** How many rights Consul takes in one question (its ACLAuthorize). */
const most = 64;

/** For one answer, in ms. */
const timeout = 10_000;

/** A node that no rule names. */
const nobody = `nobody-${randomBytes(8).toString('hex')}`;

/**
 * Which of these a token may not read. See docs/discoveries/: consul-empty-without-rights.md,
 * and consul-default-policy.md for the header that does not spare the question.
 *
 * @throws ConsulError when that cannot be asked
 */
export async function deniedAt(
  transport: Transport,
  place: Place,
  token: string | undefined,
  things: Readable[],
  signal: AbortSignal,
): Promise<Readable[]> {
  const { namespace, partition } = place;

  async function send(method: Request['method'], path: string, body?: unknown): Promise<unknown> {
    const what = `${transport.name}: ${method} /v1${path}`;
    const whole = pathOf(path, place);
    const rest = { token, body, timeout, held: 0, pool: 'read', what } as const;
    return (await transport.ask({ method, path: whole, ...rest }, signal)).body;
  }

  async function deniedOf(some: Readable[]): Promise<Readable[]> {
    const path = '/internal/acl/authorize';
    const rights = some.map(({ resource, name }) => ({
      Resource: resource,
      Segment: name,
      Access: 'read',
      ...(namespace === undefined ? {} : { Namespace: namespace }),
      ...(partition === undefined ? {} : { Partition: partition }),
    }));
    const answers = await send('POST', path, rights);
    if (!Array.isArray(answers) || answers.length !== some.length) {
      const why = 'the answer is not what was asked for';
      throw new ConsulError('consul/unusable', `${transport.name}: POST /v1${path}: ${why}`);
    }
    return some.filter((_, i) => (answers as ({ Allow?: unknown } | null)[])[i]?.Allow !== true);
  }

  /** What the servers say, whatever the agent in between knows of ACLs. */
  async function isDenied({ resource, name }: Readable): Promise<boolean> {
    const paths = {
      service: `/config/service-defaults/${encodeURIComponent(name)}`,
      node: `/coordinate/node/${encodeURIComponent(name === '' ? nobody : name)}`,
      key: kvPath(name),
    };
    try {
      await send('GET', paths[resource]);
      return false;
    } catch (error) {
      if (!(error instanceof ConsulError)) throw error;
      if (error.status === 403 && error.message.includes('Permission denied')) return true;
      // It may be read, and is not there.
      if (error.status === 404) return false;
      throw error;
    }
  }

  const denied: Readable[] = [];
  try {
    for (let i = 0; i < things.length; i += most) {
      denied.push(...(await deniedOf(things.slice(i, i + most))));
    }
    return denied;
  } catch (error) {
    const hasNone = error instanceof ConsulError && error.message.includes('ACL support disabled');
    if (!hasNone || error.status !== 401) throw error;
  }
  for (const thing of things) if (await isDenied(thing)) denied.push(thing);
  return denied;
}
