/** So many services are looked at in a second, at most, while one may have changed, and which is not known. */
const mostLooks = 600;

/** How long it takes to look at each of them once, in ms. */
export function roundOf(services: number): number {
  return Math.max(1, services / mostLooks) * 1000;
}

/** Between two looks whether any service or node is registered otherwise, in ms. */
export const lookInterval = 500;

/** So many services are read in a second whatever happens, at most. */
const renewalRate = 50;

/**
 * How long a service goes without a read when nothing rings for it, in ms: what
 * no doorbell tells, a token's new rights first of all, is learnt so.
 *
 * @param wait how long Consul may hold a query, in ms
 */
export function renewalOf(services: number, wait: number): number {
  return Math.max(2 * wait, (services / renewalRate) * 1000);
}
