// Proves that a new picker is one file and one line, that one which is none is
// named at the start, and that both sides know the same ones.
import assert from 'node:assert/strict';
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { balances } from '../../agent/state/balances.ts';
import { temporaryFolder } from '../stack/folder.ts';
import { checkout } from '../stack/install.mjs';
import { peersOf, startPeers } from './backends.ts';
import { startOpenresty } from './openresty.ts';

/** Always picks the peer of the lowest address. */
const lowest = `
local _M = {}
function _M.new()
    return setmetatable({ peers = {} }, { __index = _M })
end
function _M:set(peer)
    self.peers[peer.key] = peer
end
function _M:remove(peer)
    self.peers[peer.key] = nil
end
function _M:pick(tried)
    local best
    for key, peer in pairs(self.peers) do
        if not (tried and tried[peer]) and (not best or key < best.key) then
            best = peer
        end
    end
    return best
end
return _M
`;

/** An nginx whose Lua has one more picker. */
async function startWith(picker: string) {
  const { folder, remove } = temporaryFolder();
  after(remove);
  cpSync(join(checkout, 'lua'), join(folder, 'lua'), { recursive: true });
  const pickers = join(folder, 'lua/reloadless/balance/picker');
  writeFileSync(join(pickers, 'lowest.lua'), picker);
  const list = readFileSync(join(pickers, 'list.lua'), 'utf8');
  writeFileSync(join(pickers, 'list.lua'), list.replace('"round_robin", ', '$&"lowest", '));
  return await startOpenresty({ changes: [[join(checkout, 'lua'), join(folder, 'lua')]] });
}

test('a picker is one file and its name in the list', async () => {
  const { admin, web } = await startWith(lowest);
  const peers = await startPeers(3);
  await admin.write('PUT', '/v1/upstreams/web', { balance: 'lowest', peers: peersOf(...peers) });
  const [first] = peers.map(({ address }) => address).sort();
  for (let i = 0; i < 10; i += 1) {
    const { status, headers } = await web.send('GET', '/');
    assert.equal(status, 200);
    assert.equal(headers['x-upstream'], first);
  }
});

test('nginx does not start with a picker that lacks a function, and names it', async () => {
  await assert.rejects(
    startWith(lowest.replaceAll('_M:remove', '_M:forget')),
    /nginx ended:[\s\S]*reloadless: picker lowest has no function remove/,
  );
});

test('nginx and the agent know the same pickers', async () => {
  const { admin } = await startOpenresty();
  const path = '/v1/upstreams/web';
  for (const balance of balances)
    await admin.write('PUT', path, { balance, hash_key: '$uri', peers: {} });
  const { body } = await admin.send('PUT', path, { balance: 'fastest', peers: {} });
  assert.equal(
    JSON.parse(body).detail,
    `balance is "fastest": expected one of ${balances.join(', ')}`,
  );
});
