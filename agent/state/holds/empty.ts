import type { HoldKind, Overview } from '../hold.ts';

/**
 * No instance at all. That is also what a token without rights is shown, and a
 * Consul that has lost its catalogue. Where there are several upstreams and
 * none shows an instance, the catalogue itself is in doubt: then it is believed
 * of none, and the time starts again when one is back.
 */
export const empty: HoldKind = {
  doubts({ instances }, last) {
    return instances === 0 && (last === undefined || Object.keys(last).length > 0);
  },
  isDue(since, holdFor, all, now) {
    if (!isBelievable(all)) return false;
    const believedSince = all.upstreams === 1 ? 0 : (all.shownSince ?? now);
    return now - Math.max(since, believedSince) >= holdFor;
  },
  held(holdFor, all) {
    const until = isBelievable(all)
      ? `for ${holdFor / 1000} s`
      : 'until one of the services shows an instance again, since none does';
    return `Consul shows no instance; the last peers stay ${until}`;
  },
  believed: (gone) => `no instance is left; ${gone} held peers removed`,
  kept(all) {
    const why = isBelievable(all)
      ? 'hold_empty: 0 would remove them'
      : 'nor does it show one of any service';
    return `Consul shows no instance: ${why}`;
  },
};

/** @returns whether it can be true, with what the others show */
function isBelievable({ upstreams, shownSince }: Overview): boolean {
  return upstreams === 1 || shownSince !== undefined;
}
