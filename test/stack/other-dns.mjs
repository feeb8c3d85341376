// Loaded into the agent by `node --import`: DNS is the server that RELOADLESS_DNS
// names, and the machine's own way finds no name that ends in `.silent` either.
import dns from 'node:dns/promises';
import { syncBuiltinESMExports } from 'node:module';

const { lookup, Resolver } = dns;

dns.Resolver = class extends Resolver {
  /** @param {import('node:dns').ResolverOptions} [options] */
  constructor(options) {
    super(options);
    this.setServers([String(process.env.RELOADLESS_DNS)]);
  }
};
dns.lookup = /** @type {typeof lookup} */ (
  /** @param {[string, object]} args */
  (...args) => (args[0].endsWith('.silent') ? new Promise(() => {}) : lookup(...args))
);
syncBuiltinESMExports();
