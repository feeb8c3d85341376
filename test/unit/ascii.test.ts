// What the commands, the log and nginx's error log say can be searched with any
// keyboard: texts of our own are ASCII. Names that others chose stay as they are.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

/** A `//` within a URL begins no comment. */
const comments = {
  '.ts': /\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm,
  '.lua': /--.*$/gm,
};

for (const [folder, ending] of [
  ['agent', '.ts'],
  ['lua', '.lua'],
] as const) {
  test(`no text in ${folder}/ is other than ASCII`, () => {
    const files = readdirSync(folder, { recursive: true, encoding: 'utf8' });
    const sources = files.filter((name) => name.endsWith(ending));
    assert(sources.length > 20, `${sources.length} files`);
    const odd = sources.flatMap((name) =>
      readFileSync(join(folder, name), 'utf8')
        .replace(comments[ending], '')
        .split('\n')
        .filter((line) => /\P{ASCII}/u.test(line))
        .map((line) => `${name}: ${line.trim()}`),
    );
    assert.deepEqual(odd, []);
  });
}
