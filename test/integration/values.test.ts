// Proves that nginx takes, keeps and gives back the good values of the shared
// cases, and refuses the bad ones with a pointer to what is wrong.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readCases } from '../cases/values.ts';
import { read, startOpenresty } from './openresty.ts';

test('the shared cases', async () => {
  const { admin } = await startOpenresty();
  for (const { verdict, text, wrong } of readCases()) {
    const { status, body } = await admin.send('PUT', '/v1/upstreams', text);
    const what = `${verdict} ${text}: ${body}`;
    if (verdict === 'good') {
      assert.equal(status, 200, what);
      const { upstreams } = JSON.parse(text);
      for (const name of Object.keys(upstreams)) upstreams[name].peers ??= {};
      // as text: -0 is 0
      const expected = JSON.parse(JSON.stringify({ upstreams }));
      assert.deepEqual((await read(admin)).document, expected, what);
    } else {
      const { pointer } = JSON.parse(body);
      if (verdict === 'bad') {
        assert.equal(status, 422, what);
        const steps = wrong.map((step) => step.replaceAll('~', '~0').replaceAll('/', '~1'));
        assert.equal(pointer, steps.map((step) => `/${step}`).join(''), what);
      } else {
        assert(status === 400 || (status === 422 && /an array: /.test(body)), what);
      }
    }
  }
});
