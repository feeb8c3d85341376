import { sleep } from '../util/backoff.ts';
import type { AdminClient } from './admin.ts';
import { startTarget, type Target, type TargetOptions } from './target.ts';

interface Member {
  client: AdminClient;
  /** The instance that it serves, once it has one. */
  instance: string | undefined;
}

/** Connections that find a generation that takes any: nginx gives each worker 16 in turn. */
const enough = 2048;

/** When those were in vain: so many more at a time, and the pause between, in ms. */
const some = 64;
const pause = 300;

/**
 * Keeps one target at the desired state, as `startTarget` does. While nginx is
 * being upgraded by USR2, two generations of it accept from the same sockets,
 * each with a table of its own, and which of them a connection reaches is
 * chance: then there is a target for each, that keeps its connection to it
 * (docs/discoveries/usr2.md).
 *
 * @param options `client` is the first target's
 */
export function startGenerations(options: TargetOptions): Target {
  const { log } = options;
  const { name } = options.client;
  const members = new Map<Member, Target>();

  function add(client: AdminClient): void {
    const member: Member = { client, instance: undefined };
    members.set(member, startTarget({ ...options, client: staying(member) }));
  }

  function end(member: Member): void {
    members.get(member)?.stop();
    members.delete(member);
    log.info(`${name}: the upgrade of nginx is over: one generation is left`);
  }

  /** Takes note of who answered. @returns whether the member is to serve that one */
  function isForUs(member: Member): boolean {
    const [own, beside] = member.client.instances;
    const others = [...members.keys()].filter((other) => other !== member);
    const isTaken = own !== undefined && others.some(({ instance }) => instance === own);
    if (beside === undefined && others.length > 0) {
      if (isTaken) end(member);
      else others.forEach(end);
    }
    if (isTaken) return false;
    member.instance = own;
    if (beside !== undefined && others.length === 0) {
      log.info(`${name}: nginx is being upgraded: two generations`);
      add(member.client.another());
    }
    return true;
  }

  /** Opens connections until one reaches the generation that no other member serves. */
  async function seek(member: Member, signal: AbortSignal): Promise<void> {
    const { client } = member;
    for (let count = 1; ; count += 1) {
      client.reconnect();
      await client.ping(signal);
      if (isForUs(member)) return;
      if (count >= enough && count % some === 0) await sleep(pause, signal);
    }
  }

  /** The member's client: what it reads is of its generation, so what it writes is, by the ETag. */
  function staying(member: Member): AdminClient {
    const { client } = member;
    return {
      ...client,
      async get(etag, signal) {
        for (;;) {
          const found = await client.get(etag, signal);
          if (isForUs(member)) return found;
          await seek(member, signal);
        }
      },
      async patch(patch, etag, signal) {
        const written = await client.patch(patch, etag, signal);
        isForUs(member);
        return written;
      },
      async takeLease(owner, identity, signal) {
        const taken = await client.takeLease(owner, identity, signal);
        isForUs(member);
        return taken;
      },
      async dropLease(owner, id, signal) {
        // The generation has ended: what answers now is the one that goes on.
        if (members.has(member)) await client.dropLease(owner, id, signal);
      },
    };
  }

  add(options.client);
  return {
    get isWaiting() {
      return [...members.values()].some(({ isWaiting }) => isWaiting);
    },
    get isFailing() {
      return [...members.values()].every(({ isFailing }) => isFailing);
    },
    changed(name) {
      for (const target of members.values()) target.changed(name);
    },
    readToken() {
      for (const target of members.values()) target.readToken();
    },
    async stop() {
      await Promise.all([...members.values()].map((target) => target.stop()));
    },
  };
}
