import assert from 'node:assert/strict';
import { test } from 'node:test';
import { brief, clip, show } from '../../agent/util/text.ts';

test('a text is cut to whole characters that fit', () => {
  assert.equal(clip('web-1', 255), 'web-1');
  assert.equal(clip('€€', 5), '€');
  assert.equal(clip('x😀😀', 8), 'x😀');
  assert.equal(Buffer.byteLength(clip('€'.repeat(300), 255)), 255);
});

test('what neither cjson nor a terminal should see is replaced', () => {
  assert.equal(clip('a\ud800b\n\u001b[31m\u009b', 255), 'a\ufffdb??[31m?');
});

test('a cut in a message is shown', () => {
  assert.equal(brief('x'.repeat(80)), 'x'.repeat(80));
  assert.equal(brief('x'.repeat(81)), `${'x'.repeat(80)}...`);
});

test('a value is shown as JSON, one level deep and no longer than a line', () => {
  assert.equal(show('a"b'), '"a\\"b"');
  assert.equal(show(Number.POSITIVE_INFINITY), 'Infinity');
  assert.equal(
    show({ a: 1, b: { c: 1 }, d: [1], e: null }),
    '{"a":1,"b":"{...}","d":"[...]","e":null}',
  );
  assert.equal(show([1, [2]]), '[1,"[...]"]');
  assert.equal(show({ '': { '': 1 } }), '{"":"{...}"}');
  assert.equal(show('x'.repeat(1000)), `"${'x'.repeat(76)}...`);
  assert.equal(show('a\nb\u009b\ud800'), '"a\\nb?\\ud800"');
});
