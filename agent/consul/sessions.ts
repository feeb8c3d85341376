import type { ClientHttp2Session } from 'node:http2';
import { streamsPerConnection, watchesOn } from '../config/config.ts';
import { orAborted } from '../util/abort.ts';
import type { Pool } from './transport.ts';

/** A connection, and what it carries. */
export interface Connection {
  readonly session: ClientHttp2Session;
  /** When it came up, as `performance.now` counts. */
  readonly since: number;
  /** That are taken. */
  streams: number;
}

/** The connections to one address, which are opened as they are needed. */
export interface Sessions {
  /** How many watches they can carry; undefined as long as no server has said it. */
  readonly capacity: number | undefined;
  /** How many there are. */
  readonly size: number;
  /** Waits until the capacity is known. @throws what `connect` throws, or the signal's reason */
  ready(signal: AbortSignal): Promise<void>;
  /** Takes a stream of the connection that has the fewest. @throws as `ready` */
  take(pool: Pool, signal: AbortSignal): Promise<Connection>;
  /** Gives a stream back that has ended. */
  release(connection: Connection): void;
  /** Ends those that have no stream, and the others with their last one. */
  retire(): void;
  /** Ends all at once. */
  close(): void;
}

interface Waiter {
  resolve: (connection: Connection) => void;
  reject: (error: unknown) => void;
}

/** Between two pings of a connection, in ms. One that is not answered before the next shows that it is dead. */
const beat = 10_000;

const closed = new Error('closed');

/** @param most there may be at a time */
export function createSessions(connect: () => Promise<ClientHttp2Session>, most: number): Sessions {
  const connections = new Set<Connection>();
  const waiting: Record<Pool, Set<Waiter>> = { read: new Set(), watch: new Set() };
  let opening = 0;
  let first: Promise<void> | undefined;
  let isClosed = false;
  /** What the last server has said that each connection takes. */
  let limit: number | undefined;

  function usable(): Connection[] {
    return [...connections].filter(({ session }) => !isEnding(session));
  }

  function roomiest(pool: Pool): Connection | undefined {
    let best: Connection | undefined;
    for (const one of usable()) {
      const streams = streamsOf(one.session);
      const isFull = one.streams >= (pool === 'read' ? streams : watchesOn(streams));
      if (!isFull && (best === undefined || one.streams < best.streams)) best = one;
    }
    return best;
  }

  /** Gives those who wait what there is, and opens what they lack. */
  function serve(): void {
    for (const pool of ['read', 'watch'] as const) {
      for (const waiter of waiting[pool]) {
        const connection = roomiest(pool);
        if (connection === undefined) break;
        waiting[pool].delete(waiter);
        connection.streams += 1;
        waiter.resolve(connection);
      }
    }
    const lacking = waiting.read.size + waiting.watch.size;
    // Before the first has come up, nobody knows how many are needed.
    const wanted =
      limit === undefined ? Math.min(1, lacking) : Math.ceil(lacking / watchesOn(limit));
    while (opening < wanted && connections.size + opening < most) open().catch(() => {});
  }

  async function open(): Promise<void> {
    opening += 1;
    let session: ClientHttp2Session;
    try {
      session = await connect();
    } catch (error) {
      opening -= 1;
      // Another that is on its way may serve them.
      if (opening === 0) refuse(error);
      throw error;
    }
    opening -= 1;
    if (isClosed) session.destroy();
    else add(session);
  }

  function refuse(error: unknown): void {
    for (const waiters of Object.values(waiting)) {
      for (const { reject } of waiters) reject(error);
      waiters.clear();
    }
  }

  function add(session: ClientHttp2Session): void {
    const connection = { session, since: performance.now(), streams: 0 };
    connections.add(connection);
    limit = streamsOf(session);
    const stopPings = ping(session, () => {
      if (isSurplus(connection)) session.close();
    });
    session.on('remoteSettings', () => {
      limit = streamsOf(session);
      serve();
    });
    // Node takes no new stream on it from then on.
    session.on('goaway', serve);
    session.on('close', () => {
      stopPings();
      connections.delete(connection);
      serve();
    });
    serve();
  }

  /** Whether the others would be half empty without it. */
  function isSurplus(connection: Connection): boolean {
    const all = usable();
    const streams = all.reduce((sum, one) => sum + one.streams, 0);
    const room = (all.length - 1) * watchesOn(streamsOf(connection.session));
    return streams < room / 2 && all.every((one) => one.streams >= connection.streams);
  }

  return {
    get capacity() {
      return limit === undefined ? undefined : most * watchesOn(limit);
    },
    get size() {
      return connections.size;
    },
    async ready(signal) {
      if (limit !== undefined) return;
      first ??= open().finally(() => {
        first = undefined;
      });
      await orAborted(first, signal);
    },
    take(pool, signal) {
      if (isClosed) return Promise.reject(closed);
      return new Promise((resolve, reject) => {
        const connection = waiting[pool].size === 0 ? roomiest(pool) : undefined;
        if (connection !== undefined) {
          connection.streams += 1;
          resolve(connection);
          return;
        }
        const leave = () => {
          waiting[pool].delete(waiter);
          reject(signal.reason);
        };
        const waiter: Waiter = {
          resolve(connection) {
            signal.removeEventListener('abort', leave);
            resolve(connection);
          },
          reject(error) {
            signal.removeEventListener('abort', leave);
            reject(error);
          },
        };
        signal.addEventListener('abort', leave, { once: true });
        waiting[pool].add(waiter);
        serve();
      });
    },
    release(connection) {
      connection.streams -= 1;
      serve();
    },
    retire() {
      limit = undefined;
      for (const { session } of connections) session.close();
    },
    close() {
      isClosed = true;
      refuse(closed);
      for (const { session } of connections) session.destroy();
    },
  };
}

/** Whether it takes no more streams. */
export function isEnding({ closed, destroyed }: ClientHttp2Session): boolean {
  return closed || destroyed;
}

function streamsOf({ remoteSettings }: ClientHttp2Session): number {
  return Math.min(
    remoteSettings.maxConcurrentStreams ?? streamsPerConnection,
    streamsPerConnection,
  );
}

/** @param alive is called each time the server has answered @returns a function that ends it */
function ping(session: ClientHttp2Session, alive: () => void): () => void {
  let isAwaited = false;
  const timer = setInterval(() => {
    // Its `close` may come later, and a ping would throw.
    if (session.destroyed) return;
    if (isAwaited) {
      session.destroy();
      return;
    }
    isAwaited = session.ping(() => {
      isAwaited = false;
      if (!session.destroyed) alive();
    });
  }, beat);
  return () => clearInterval(timer);
}
