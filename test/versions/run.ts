// Runs the Lua specs and all tests that start nginx on the nginx of other Debian
// releases, each in a chroot of its own, and prints a table of what came of it.
//
//   npm run test:nginx [-- RELEASE…]
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { makeRoot, runInside } from '../stack/debian.ts';
import { parts } from '../stack/install.mjs';

/** Where the chroots are made, and where it is kept what a run said. */
const store = join(parts, 'versions');

/** nginx, and what the tests need beside node and Consul, which are this machine's. */
const packages = [
  ...['nginx', 'libnginx-mod-http-lua', 'lua-cjson'],
  ...['luajit', 'lua-busted', 'openssl', 'faketime', 'curl'],
];

interface Result {
  release: string;
  nginx: string;
  lua: string;
  passed: number;
  skipped: number;
  /** The names of the tests. */
  failed: string[];
}

/** The file of all that the tests of this release said. */
function logOf(release: string): string {
  return join(store, `${release}.tap`);
}

/** The version of a package that is installed there, without Debian's own part. */
function version(root: string, name: string): string {
  const shown = execFileSync('chroot', [root, 'dpkg-query', '--show', name], { encoding: 'utf8' });
  return /\t(?:\d+:)?([\d.]+)/.exec(shown)?.[1] ?? shown.trim();
}

/** Runs the tests in the Debian and tells each as it ends. */
async function test(release: string): Promise<Result> {
  const root = join(store, release);
  makeRoot(release, root, packages);
  const result: Result = {
    release,
    nginx: version(root, 'nginx'),
    lua: version(root, 'libnginx-mod-http-lua'),
    passed: 0,
    skipped: 0,
    failed: [],
  };
  console.log(`${release}: nginx ${result.nginx}, Lua module ${result.lua}`);
  const log = createWriteStream(logOf(release));
  const child = runInside(root, ['sh', 'test/versions/suite.sh']);
  const ended = once(child, 'close');
  for await (const line of createInterface(child.stdout as Readable)) {
    log.write(`${line}\n`);
    count(line, result);
  }
  const [status] = await ended;
  log.end();
  rmSync(root, { recursive: true });
  // One that broke off has said of no test that it failed.
  if (status !== 0 && result.failed.length === 0) result.failed.push(`exit ${status}`);
  return result;
}

/** Reads one line of TAP. */
function count(line: string, result: Result): void {
  const [, not, name = ''] = /^\s*(not )?ok \d+ - (.*)$/.exec(line) ?? [];
  if (name === '') {
    // Those within it are told already.
    if (/^\s*failureType: 'subtestsFailed'$/.test(line)) result.failed.pop();
    return;
  }
  console.log(`${result.release}: ${line.trim()}`);
  if (not !== undefined) result.failed.push(name);
  else if (/ # SKIP\b/.test(name)) result.skipped += 1;
  else result.passed += 1;
}

function print(results: Result[]): void {
  const rows = [
    ['Debian', 'nginx', 'Lua module', 'passed', 'failed', 'skipped'],
    ...results.map(({ release, nginx, lua, passed, failed, skipped }) => {
      return [release, nginx, lua, `${passed}`, `${failed.length}`, `${skipped}`];
    }),
  ];
  console.log();
  for (const row of rows) console.log(row.map((cell) => cell.padEnd(12)).join(''));
  for (const { release, failed } of results) {
    if (failed.length > 0) console.log(`\nFailed on ${release}, see ${logOf(release)}:`);
    for (const name of failed) console.log(`  ${name}`);
  }
}

mkdirSync(store, { recursive: true });
const chosen = process.argv.slice(2);
const results: Result[] = [];
for (const release of chosen.length > 0 ? chosen : ['trixie', 'forky']) {
  results.push(await test(release));
}
print(results);
process.exitCode = results.some(({ failed }) => failed.length > 0) ? 1 : 0;
