import { isIP } from 'node:net';
import { createTurns } from '../../util/turns.ts';
import type { Lookup } from './dns.ts';

interface Resolution {
  /** What is known now of each name; one that was never found has none. */
  addresses: ReadonlyMap<string, string[]>;
  /** The names of which nothing is known yet, since their first look-up goes on. */
  awaited: string[];
}

/** The addresses of host names. It looks them up beside: nobody waits for it. */
export interface Resolver {
  /**
   * Says what is known now, begins to look up the names that are new and
   * forgets all others.
   *
   * @param earlier addresses that a new name has until it is looked up
   */
  resolve(names: string[], earlier?: ReadonlyMap<string, string[]>): Resolution;
  /** Looks all names up again, as it does by itself. One that cannot be found now keeps its addresses. */
  refresh(): void;
  /** Ends when the first look-up of each name has ended. */
  settled(): Promise<void>;
}

interface ResolverOptions {
  lookup: Lookup;
  /** Hears that a name has other addresses now, or has none and is awaited no more. */
  changed: () => void;
  /** Hears of each name that was not found, once until it is. */
  failed: (name: string, error: Error, addresses: string[]) => void;
}

interface Name {
  addresses: string[];
  state: 'new' | 'found' | 'missing';
  /** The look-up that goes on. */
  looking: Promise<void> | undefined;
}

/** Names that one resolver looks up at once. */
const most = 32;

/** Between two look-ups of the same names, in ms. */
const refreshInterval = 30_000;

export function createResolver({ lookup, changed, failed }: ResolverOptions): Resolver {
  const known = new Map<string, Name>();
  const turns = createTurns(most);
  let timer: NodeJS.Timeout | undefined;

  function isWanted(name: string, entry: Name): boolean {
    return known.get(name) === entry;
  }

  async function look(name: string, entry: Name): Promise<void> {
    if (!isWanted(name, entry)) return;
    const before = { ...entry };
    try {
      const found = (await lookup(name)).filter((ip) => isIP(ip) !== 0 && !ip.includes('%'));
      if (found.length === 0) throw new Error('it has only addresses with a zone');
      entry.addresses = found.sort();
      entry.state = 'found';
    } catch (error) {
      entry.state = 'missing';
      if (isWanted(name, entry) && before.state !== 'missing') {
        failed(name, error as Error, entry.addresses);
      }
    }
    const isOther = entry.addresses.join() !== before.addresses.join();
    const isOver = before.state === 'new' && entry.addresses.length === 0;
    if (isWanted(name, entry) && (isOther || isOver)) changed();
  }

  function begin(name: string, entry: Name): void {
    entry.looking ??= turns(() => look(name, entry)).finally(() => {
      entry.looking = undefined;
    });
  }

  function refresh(): void {
    for (const [name, entry] of known) begin(name, entry);
  }

  /** Where there is no name, there is nothing to do. */
  function keepFresh(): void {
    if (known.size === 0) {
      clearInterval(timer);
      timer = undefined;
    } else {
      timer ??= setInterval(refresh, refreshInterval).unref();
    }
  }

  return {
    resolve(names, earlier) {
      const wanted = new Set(names);
      for (const name of known.keys()) if (!wanted.has(name)) known.delete(name);
      for (const name of wanted) {
        if (known.has(name)) continue;
        const addresses = earlier?.get(name) ?? [];
        const entry: Name = { addresses, state: 'new', looking: undefined };
        known.set(name, entry);
        begin(name, entry);
      }
      keepFresh();
      const all = [...known];
      const isAwaited = ({ state, addresses }: Name) => state === 'new' && addresses.length === 0;
      return {
        addresses: new Map(all.map(([name, { addresses }]) => [name, addresses])),
        awaited: all.filter(([, entry]) => isAwaited(entry)).map(([name]) => name),
      };
    },
    refresh,
    async settled() {
      await Promise.all([...known.values()].map(({ looking }) => looking));
    },
  };
}
