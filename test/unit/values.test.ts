// Proves that the agent takes and refuses what nginx does, and names what is wrong.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import { decodeSnapshot } from '../../agent/snapshot/format.ts';
import { peer, siftDocument, upstream } from '../../agent/state/document-schema.ts';
import { brief, show } from '../../agent/util/text.ts';
import { type Case, readCases } from '../cases/values.ts';

const cases = readCases();

/** What it says of the first thing that is wrong; undefined when all is right. */
function complaint(value: unknown): string | undefined {
  try {
    return siftDocument(value).leftOut[0];
  } catch (error) {
    return (error as Error).message;
  }
}

function load(text: string): void {
  const head = { format: 1, saved_at: '2026-01-31T12:00:00Z', length: text.length };
  const line = JSON.stringify({ ...head, crc32: crc32(text) });
  decodeSnapshot(Buffer.from(`${line}\n${text}\n`));
}

for (const { verdict, text, wrong } of cases) {
  const what = text.length > 100 ? `${text.slice(0, 97)}...` : text;
  test(`${verdict} ${what}`, () => {
    if (verdict === 'unread') {
      assert.throws(
        () => load(text),
        /^SnapshotError: the second line (is not JSON|holds an array)/,
      );
      return;
    }
    const value = JSON.parse(text);
    if (verdict === 'good') {
      const { document, leftOut } = siftDocument(value);
      assert.deepEqual(leftOut, []);
      assert.deepEqual(document, withPeers(value));
      return;
    }
    // The path as a person reads it, or the document itself.
    const where = wrong.length === 0 ? show(value) : `${wrong.map((key) => brief(key)).join('.')}:`;
    const said = complaint(value);
    assert.equal(said?.startsWith(`${where} `), true, `${said} is not about ${where}`);
  });
}

/** An upstream without peers is one that has none. */
function withPeers({ upstreams }: { upstreams: Record<string, object> }): object {
  const all = Object.entries(upstreams);
  return {
    upstreams: Object.fromEntries(all.map(([name, one]) => [name, { peers: {}, ...one }])),
  };
}

/** The fields that lie so deep, of those that have values of this verdict. */
function fields(verdict: Case['verdict'], depth: number): string[] {
  const found = cases.filter((one) => one.verdict === verdict && one.at.length === depth);
  return [...new Set(found.map(({ at }) => at.at(-1) ?? ''))].sort();
}

test('each field has good and bad values', () => {
  for (const verdict of ['good', 'bad', 'unread'] as const) {
    assert.deepEqual(fields(verdict, 3), Object.keys(upstream.shape).sort(), verdict);
    assert.deepEqual(fields(verdict, 5), Object.keys(peer.shape).sort(), verdict);
  }
});
