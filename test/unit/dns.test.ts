import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { createLookup, type Lookup } from '../../agent/source/health/dns.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { FakeDns } from './fake-dns.ts';

async function start(
  t: TestContext,
  known: Record<string, string | number>,
  hosts = '',
): Promise<{ dns: FakeDns; lookup: Lookup }> {
  const dns = await FakeDns.start(known);
  t.after(() => dns.stop());
  const { folder, remove } = temporaryFolder();
  t.after(remove);
  const hostsFile = join(folder, 'hosts');
  writeFileSync(hostsFile, hosts);
  return { dns, lookup: createLookup({ servers: [dns.address], hostsFile, timeout: 300 }) };
}

test('a name that DNS knows', async (t) => {
  const { lookup } = await start(t, { 'web.test': '10.0.0.5' });
  assert.deepEqual(await lookup('web.test'), ['10.0.0.5']);
});

test('the hosts file goes before DNS, and needs none', async (t) => {
  const hosts =
    '127.0.0.1 localhost\n10.0.0.6\tother web.test # web\nfd00::6 WEB.test\n#10.0.0.7 web.test\n';
  const { dns, lookup } = await start(t, { 'web.test': '10.0.0.5' }, hosts);
  assert.deepEqual(await lookup('Web.test'), ['10.0.0.6', 'fd00::6']);
  assert.deepEqual(dns.asked, []);
});

test('a name that DNS does not have goes the machine’s own way', async (t) => {
  const { dns, lookup } = await start(t, { localhost: 3 });
  assert((await lookup('localhost')).includes('127.0.0.1'));
  assert(dns.asked.includes('localhost'));
});

test('a silent DNS ends by our own time-out, and holds up nobody', async (t) => {
  const { lookup } = await start(t, { 'web.test': '10.0.0.5' });
  const silent = Array.from({ length: 20 }, (_, i) => lookup(`silent-${i}.test`));
  const all = Promise.allSettled(silent);
  const first = await Promise.race([all, lookup('web.test')]);
  assert.deepEqual(first, ['10.0.0.5']);
  for (const result of await all) {
    assert.equal(result.status, 'rejected');
    assert.match(String(result.reason), /no answer from DNS within 0\.3 s|ETIMEOUT/);
  }
});

test('an error of DNS is no answer', async (t) => {
  const { lookup } = await start(t, { 'web.test': 2 });
  await assert.rejects(lookup('web.test'), /ESERVFAIL|no answer from DNS/);
});
