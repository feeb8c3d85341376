import { lookup } from 'node:dns/promises';

export interface Resolver {
  /**
   * The addresses of host names. A name not seen before is looked up first. One
   * that was not found has none, and waits for `refresh` to be looked up again.
   */
  resolve(names: string[]): Promise<ReadonlyMap<string, string[]>>;
  /**
   * Looks the names up again and forgets all others. One that cannot be found
   * now keeps its addresses.
   *
   * @returns whether any has other addresses than before
   */
  refresh(names: string[]): Promise<boolean>;
}

/** @param failed hears of each name that was not found, once until it is */
export function createResolver(failed: (name: string, error: Error) => void): Resolver {
  const known = new Map<string, string[]>();
  const missing = new Set<string>();

  /** @returns whether the addresses are other than before */
  async function look(name: string): Promise<boolean> {
    try {
      const found = await lookup(name, { all: true });
      const addresses = found.map(({ address }) => address).sort();
      const changed = addresses.join() !== known.get(name)?.join();
      known.set(name, addresses);
      missing.delete(name);
      return changed;
    } catch (error) {
      if (!missing.has(name)) failed(name, error as Error);
      missing.add(name);
      return false;
    }
  }

  return {
    async resolve(names) {
      await Promise.all(names.filter((name) => !known.has(name) && !missing.has(name)).map(look));
      return known;
    },
    async refresh(names) {
      for (const name of [...known.keys(), ...missing]) {
        if (names.includes(name)) continue;
        known.delete(name);
        missing.delete(name);
      }
      return (await Promise.all(names.map(look))).includes(true);
    },
  };
}
