import { isDeepStrictEqual } from 'node:util';
import type { Config, UpstreamConfig } from '../../config/config.ts';
import type { Catalogue } from '../../consul/api.ts';
import type { Upstream } from '../../state/document.ts';
import type { Change, State } from '../../state/state.ts';
import { boundedLog, type FaultLog } from '../../telemetry/bounded.ts';
import {
  couldHaveFound,
  createFinder,
  type Finder,
  findUpstreams,
  listed,
  type Match,
  upstreamOf,
} from './rules.ts';

/** The upstreams that are wanted: those of the configuration, and those that are discovered. */
export interface UpstreamSet {
  readonly upstreams: ReadonlyMap<string, UpstreamConfig>;
  /** Goes on with another configuration; nobody is told. */
  configure(config: Config): void;
  /** Takes what Consul shows. @returns whether it made anything other than before */
  answered(catalogue: Catalogue): boolean;
  /** Takes upstreams of ours that a snapshot or a target has: they may be wanted still. */
  remember(upstreams: Iterable<[string, Upstream]>): void;
  /** Hears of each change of the state. */
  happened(change: Change): void;
}

interface UpstreamSetOptions {
  state: State;
  log: FaultLog;
  /** The set is another. @param isNew it is known now, and was not */
  changed: (isNew: boolean) => void;
}

/** What its lines in the log are about. */
export const subject = 'discover';

/** From so many on, one answer that takes more than half of them is a mass that vanishes. */
const mass = 10;

/**
 * Declares the upstreams to the state. Nothing is taken out because the catalogue
 * does not show it: an answer may be old, and a token without rights sees an
 * empty catalogue. What was there is followed on, until its own query shows no
 * instance, and that has been held and confirmed as for any upstream.
 */
export function createUpstreamSet({ state, log, changed }: UpstreamSetOptions): UpstreamSet {
  const warnings = boundedLog(log);
  let config: Config | undefined;
  let finders: Finder[] = [];
  /** undefined: not known. */
  let catalogue: Catalogue | undefined;
  /** What the catalogue shows. */
  let found = new Map<string, Match>();
  /** What else was found, or may have been, and has not gone. */
  let matches = new Map<string, Match>();
  let upstreams: ReadonlyMap<string, UpstreamConfig> = new Map();
  let said: string[] = [];
  let isWaiting = false;

  function isRule({ rule }: Match): boolean {
    return finders.some((finder) => finder.rule === rule);
  }

  /** How an upstream that the catalogue does not show came to be. */
  function madeBy(name: string): Match | undefined {
    const last = matches.get(name);
    if (last !== undefined && isRule(last)) return last;
    return catalogue === undefined ? undefined : couldHaveFound(finders, name);
  }

  /** @param more names that a target has */
  function update(more: Iterable<string> = []): void {
    const configured = config?.upstreams ?? new Map();
    const next = new Map(found);
    for (const name of [...state.names(), ...more]) {
      if (next.has(name) || configured.has(name) || state.isGone(name)) continue;
      const match = madeBy(name);
      if (match !== undefined) next.set(name, match);
    }
    const discovered = [...next].map(([name, match]): [string, UpstreamConfig] => {
      const last = matches.get(name);
      const isSame = last?.rule === match.rule && last.service === match.service;
      return [name, (isSame ? upstreams.get(name) : undefined) ?? upstreamOf(match)];
    });
    upstreams = new Map([...configured, ...discovered]);
    sayDifference(matches, next);
    matches = next;
    const isPending = finders.length > 0 && catalogue === undefined;
    state.declare(upstreams, config?.file !== undefined, isPending);
  }

  function sayDifference(before: Map<string, Match>, after: Map<string, Match>): void {
    const come = [...after.keys()].filter((name) => !before.has(name));
    const gone = [...before.keys()].filter((name) => !after.has(name));
    const say = (line: string) => log.info({ upstream: subject }, `${subject}: ${line}`);
    if (come.length > 0) say(`found ${listed(come)}`);
    if (gone.length > 0) say(`gone is ${listed(gone)}`);
  }

  function say(notes: string[]): void {
    for (const note of notes) {
      if (!said.includes(note)) warnings.warn({ upstream: subject }, `${subject}: ${note}`);
    }
    said = notes;
  }

  /** @returns how many are not found any more; undefined: nothing is found otherwise */
  function look(): number | undefined {
    if (catalogue === undefined) return undefined;
    const before = found;
    const findings = findUpstreams(finders, catalogue, config?.upstreams ?? new Map());
    found = findings.matches;
    say(findings.notes);
    const lost = [...before.keys()].filter((name) => !found.has(name)).length;
    const isSame = ([name, { rule, service }]: [string, Match]) =>
      before.get(name)?.rule === rule && before.get(name)?.service === service;
    return lost === 0 && [...found].every(isSame) ? undefined : lost;
  }

  return {
    get upstreams() {
      return upstreams;
    },
    configure(next) {
      // Of another Consul nothing is known, and without a rule nobody asks.
      if (next.discover.length === 0 || !isDeepStrictEqual(next.consul, config?.consul)) {
        catalogue = undefined;
        found = new Map();
      }
      // A rule that stays is the same one, and so is what it has found.
      finders = next.discover.map(
        (rule) => finders.find((one) => isDeepStrictEqual(one.rule, rule)) ?? createFinder(rule),
      );
      config = next;
      look();
      update();
    },
    answered(shown) {
      const isFirst = catalogue === undefined;
      const had = found.size;
      catalogue = shown;
      const lost = look();
      if (lost !== undefined && had >= mass && lost > had / 2) {
        const what = `the catalogue shows ${lost} of ${had} services no more`;
        const fate = 'each stays until its own query shows no instance, and hold_empty is over';
        warnings.warn({ upstream: subject }, `${subject}: ${what}: ${fate}`);
      }
      if (lost === undefined && !isFirst) return false;
      update();
      changed(isFirst);
      return true;
    },
    remember(all) {
      const ours = [...all];
      const names = ours.map(([name]) => name);
      const others = names.filter((name) => state.get(name) === undefined && madeBy(name));
      if (others.length > 0) {
        update(others);
        changed(false);
      }
      for (const [name, upstream] of ours) state.remember(name, upstream);
    },
    happened({ upstream: name }) {
      if (!matches.has(name) || found.has(name) || !state.isGone(name)) return;
      if (isWaiting) return;
      isWaiting = true;
      // Many may go at once.
      setImmediate(() => {
        isWaiting = false;
        update();
        changed(false);
      });
    },
  };
}
