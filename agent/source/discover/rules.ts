import type { DiscoverRule, UpstreamConfig } from '../../config/config.ts';
import type { Catalogue } from '../../consul/api.ts';
import { isUpstreamName } from '../../state/field-checks.ts';
import { brief } from '../../util/text.ts';
import type { HealthConfig } from '../health/config.ts';
import { createPattern, type Pattern } from './pattern.ts';

/** A service that a rule takes. */
export interface Match {
  rule: DiscoverRule;
  service: string;
}

/** A rule that is ready to be used. */
export interface Finder {
  rule: DiscoverRule;
  pattern: Pattern;
}

interface Findings {
  /** By the name of the upstream, in its order. */
  matches: Map<string, Match>;
  /** What a person should know, one line each. */
  notes: string[];
}

/** Where the name of an upstream has that of its service. */
export const placeholder = '{service}';

/** So many names are as many as a line of a log can bear. */
const mostNamed = 5;

export function createFinder(rule: DiscoverRule): Finder {
  return { rule, pattern: createPattern(rule.service) };
}

/**
 * Which upstreams there are, by what the catalogue shows. Of several that have
 * one name, the first rule's wins. A filter is left to the query of each service:
 * docs/discoveries/catalogue-filter.md.
 *
 * @param taken names that are not to be given
 */
export function findUpstreams(
  finders: readonly Finder[],
  catalogue: Catalogue,
  taken: { has(name: string): boolean },
): Findings {
  const matches = new Map<string, Match>();
  const unnamable = new Set<string>();
  const doubles = new Set<string>();
  for (const { rule, pattern } of finders) {
    const tagged = [...catalogue.keys()].filter((service) => {
      const tags = catalogue.get(service);
      return rule.tags.every((tag) => tags?.has(tag));
    });
    const isNamable = (service: string) => isUpstreamName(nameFor(rule, service));
    for (const service of tagged) if (!isNamable(service)) unnamable.add(service);
    for (const service of pattern.select(tagged.filter(isNamable))) {
      const name = nameFor(rule, service);
      if (taken.has(name)) continue;
      if (matches.has(name)) doubles.add(name);
      else matches.set(name, { rule, service });
    }
  }
  const slow = new Set(finders.flatMap(({ pattern }) => [...pattern.slow]));
  const notes = [
    note('left out, since no upstream can have such a name', unnamable),
    note('found by several rules, of which the first wins', doubles),
    note('left out, since the regular expression takes too long', slow),
  ];
  const sorted = [...matches].sort(([a], [b]) => (a < b ? -1 : 1));
  return { matches: new Map(sorted), notes: notes.filter((line) => line !== undefined) };
}

/** The rules that would give an upstream this name, as far as they can be told without a catalogue. */
export function couldHaveFound(finders: readonly Finder[], name: string): Match | undefined {
  for (const { rule, pattern } of finders) {
    const [before = '', after = ''] = rule.name.split(placeholder);
    const service = name.slice(before.length, name.length - after.length);
    if (service === '' || nameFor(rule, service) !== name) continue;
    if (pattern.select([service]).length > 0) return { rule, service };
  }
  return undefined;
}

/** What is wanted of an upstream that was found. */
export function upstreamOf({ rule: { upstream }, service }: Match): UpstreamConfig {
  const source: HealthConfig = { ...upstream.source, service };
  return { ...upstream, source };
}

/** @returns such as `a, b and 3 more` */
export function listed(names: Iterable<string>): string {
  const all = [...names];
  const shown = all.slice(0, mostNamed).map((name) => brief(name, 128));
  const more = all.length - shown.length;
  return more > 0 ? `${shown.join(', ')} and ${more} more` : shown.join(', ');
}

function note(what: string, names: Set<string>): string | undefined {
  return names.size === 0 ? undefined : `${what}: ${listed(names)}`;
}

function nameFor({ name }: DiscoverRule, service: string): string {
  return name.replace(placeholder, () => service);
}
