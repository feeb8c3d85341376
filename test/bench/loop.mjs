// What the loops of the benchmarks have in common: from an answer of Consul to a
// merge patch, without a check of anything.

/**
 * @param {string} service
 * @param {string} owner
 * @returns {(entries: any[]) => object | undefined} takes each answer; gives the
 *   patch that it makes, or undefined where nothing is other than before
 */
export function createPatcher(service, owner) {
  let had = '';
  /** @type {string[]} */
  let addresses = [];
  return (entries) => {
    /** @type {Record<string, object | null>} */
    const peers = {};
    for (const { Service } of entries) {
      peers[`${Service.Address}:${Service.Port}`] = {
        weight: Service.Weights.Passing,
        id: Service.ID,
      };
    }
    const has = JSON.stringify(peers);
    if (has === had) return undefined;
    had = has;
    const now = Object.keys(peers);
    for (const address of addresses) peers[address] ??= null;
    addresses = now;
    return { upstreams: { [service]: { owner, peers } } };
  };
}
