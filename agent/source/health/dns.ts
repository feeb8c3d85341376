import { lookup as getaddrinfo, Resolver } from 'node:dns/promises';
import { readFile } from 'node:fs/promises';

/** Finds the addresses of a host name. @throws Error when there are none, or none in time */
export type Lookup = (name: string) => Promise<string[]>;

interface LookupOptions {
  /** DNS servers as `address:port`; else those of the machine. */
  servers?: string[];
  /** In the form of hosts(5). */
  hostsFile?: string;
  /** For one name, in ms. */
  timeout?: number;
}

/** DNS has no such addresses, or there is no DNS here at all. */
const noAddresses = ['ENOTFOUND', 'ENODATA', 'ECONNREFUSED'];

/**
 * Looks in the hosts file, then asks DNS, as the machine does for other programs,
 * but so that a silent DNS holds nobody up (docs/discoveries/lookups-hold-threads.md).
 * Only a name that DNS does not have goes the machine's own way, which knows
 * search domains too.
 */
export function createLookup({
  servers,
  hostsFile = '/etc/hosts',
  timeout = 5000,
}: LookupOptions = {}): Lookup {
  async function ask(name: string, resolver: Resolver): Promise<string[]> {
    const listed = inHosts(await readFile(hostsFile, 'utf8').catch(() => ''), name);
    if (listed.length > 0) return listed;
    const answers = await Promise.all([
      resolver.resolve4(name).catch(noneIfKnown),
      resolver.resolve6(name).catch(noneIfKnown),
    ]);
    if (answers.flat().length > 0) return answers.flat();
    return (await getaddrinfo(name, { all: true })).map(({ address }) => address);
  }

  return async (name) => {
    // A new one each time: it reads which servers the machine has now.
    const resolver = new Resolver({ timeout: Math.ceil(timeout / 3), tries: 2 });
    if (servers !== undefined) resolver.setServers(servers);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const error = new Error(`no answer from DNS within ${timeout / 1000} s`);
      timer = setTimeout(() => reject(error), timeout);
    });
    try {
      return await Promise.race([ask(name, resolver), late]);
    } finally {
      clearTimeout(timer);
      resolver.cancel();
    }
  };
}

function noneIfKnown(error: NodeJS.ErrnoException): string[] {
  if (noAddresses.includes(error.code ?? '')) return [];
  throw error;
}

/** The addresses of a name in a text of the form of hosts(5). */
function inHosts(text: string, name: string): string[] {
  const wanted = name.toLowerCase();
  return text.split('\n').flatMap((line) => {
    const [address, ...names] = (line.split('#')[0] ?? '').trim().toLowerCase().split(/\s+/);
    return address !== undefined && names.includes(wanted) ? [address] : [];
  });
}
