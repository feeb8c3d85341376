import type { Balance } from '../../state/balances.ts';
import type { Peer, Settings } from '../../state/document.ts';
import * as field from '../../state/field-checks.ts';
import { whyInvalid } from '../../util/invalid.ts';
import { brief, show } from '../../util/text.ts';
import { readFields } from '../fields.ts';

/** Where settings of an instance are looked for. */
export const settingsSources = ['meta', 'tags'] as const;

export type SettingsSource = (typeof settingsSources)[number];

/** What an instance says of its own settings. */
export interface OwnSettings {
  peer: Peer;
  /** How it wants its upstream to be balanced. */
  balance: Balance | undefined;
  /** One line for each value that cannot be used. */
  faults: string[];
}

const prefix = /^reloadless[-_]/;

/** Those that are settings; any other tag means something else. */
const settingTag =
  /^(?:(weight|max_fails|fail_timeout|max_conns|slow_start|zone|backup|down|drain)=(.*)|(backup|down))$/s;

/**
 * Reads an instance's settings: `reloadless-weight` and the like of its meta, and
 * the tags that nginx-upsync-module knows, of which meta wins. The plain `zone`
 * and `backup` of meta count where nothing else says so.
 */
export function readSettings(
  meta: Readonly<Record<string, string>>,
  tags: readonly string[],
  from: readonly SettingsSource[],
): OwnSettings {
  const peer: Peer = {};
  const faults: string[] = [];
  let balance: Balance | undefined;

  function take(where: string, name: string, value: string): void {
    const read = readFields([[name, value]]);
    Object.assign(peer, read.peer);
    for (const fault of read.faults) faults.push(`${where}: ${fault}`);
  }

  if (from.includes('meta')) {
    const { zone, backup } = meta;
    if (zone !== undefined && field.zone.safeParse(zone).success) peer.zone = zone;
    if (backup === 'true') peer.backup = true;
  }
  if (from.includes('tags')) {
    for (const tag of tags) {
      const [, name, value = '', flag] = settingTag.exec(tag) ?? [];
      if (name !== undefined) take(`tag ${show(tag)}`, name, value);
      else if (flag !== undefined) take(`tag ${show(tag)}`, flag, '1');
    }
  }
  if (from.includes('meta')) {
    for (const [key, value] of Object.entries(meta)) {
      if (!prefix.test(key)) continue;
      const name = key.replace(prefix, '').replaceAll('-', '_');
      if (name !== 'balance') {
        take(`meta ${brief(key)}`, name, value);
        continue;
      }
      const { data, error } = field.balance.safeParse(value);
      if (error === undefined) balance = data as Balance;
      else faults.push(`meta ${brief(key)}: ${whyInvalid(error, value)}`);
    }
  }
  return { peer, balance, faults };
}

/**
 * What instances want counts where the upstream says nothing itself. Where they
 * do not agree, the one with the lowest ID has it.
 *
 * @param wanted in the order of their IDs
 * @param settings of the upstream
 * @returns and what is to be said of it, one line each
 */
export function balanceOf(
  wanted: readonly Balance[],
  { balance, hash_key }: Settings,
): { balance: Balance | undefined; why: string[] } {
  if (balance !== undefined) return { balance: undefined, why: [] };
  const all = [...new Set(wanted)];
  const [first] = all;
  if (first === 'hash' && hash_key === undefined) {
    return { balance: undefined, why: ['balance hash: the upstream has no hash_key'] };
  }
  const why =
    all.length > 1 ? [`balance: instances say ${all.join(', ')}, and ${first} is used`] : [];
  return { balance: first, why };
}
