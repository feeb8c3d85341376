// How the benchmarks tell what they found: a table on the terminal and, with
// --json FILE, the same figures as JSON.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { findConsul, findNginx } from '../stack/install.mjs';
import { percentile } from './statistics.ts';

/** What many measurements of one thing come to. */
export interface Figure {
  median: number;
  p99: number;
  least: number;
  most: number;
  count: number;
}

export function figure(values: number[]): Figure {
  const [least, median, p99, most] = [0, 0.5, 0.99, 1].map((share) => percentile(values, share));
  return { median, p99, least, most, count: values.length } as Figure;
}

/** The first cell of each row is left-aligned, the others right-aligned. */
export function printTable(rows: string[][]): void {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, i) => {
      widths[i] = Math.max(widths[i] ?? 0, cell.length);
    });
  }
  for (const [first = '', ...cells] of rows) {
    const right = cells.map((cell, i) => cell.padStart((widths[i + 1] ?? 0) + 2));
    process.stdout.write(`${first.padEnd(widths[0] ?? 0)}${right.join('')}\n`);
  }
}

/** @param path undefined: nothing is written */
export function writeJson(path: string | undefined, bench: string, results: object): void {
  if (path === undefined) return;
  const consul = execFileSync(findConsul() ?? 'consul', ['version'], { encoding: 'utf8' });
  const machine = {
    processors: cpus().length,
    node: process.version,
    consul: consul.split('\n')[0],
    nginx: findNginx()?.version,
  };
  const all = { bench, at: new Date().toISOString(), machine, ...results };
  writeFileSync(path, `${JSON.stringify(all, null, 2)}\n`);
}
