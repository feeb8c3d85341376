-- Proves the order of the tiers around any picker: the own zone while enough of
-- it is fit, then all primaries, then backups.

local new_peer = require("test.lua.peer")
local pickers = require("reloadless.balance.picker.list")
local tiers = require("reloadless.balance.tiers")


-- The names that many picks give.
local function picked(all, tried)
    local names = {}
    for i = 1, 300 do
        local peer = all:pick(tried, "key" .. i)
        if peer then
            all:update(peer)
            names[peer.key] = true
        end
    end
    local list = {}
    for name in pairs(names) do
        list[#list + 1] = name
    end
    table.sort(list)
    return table.concat(list, " ")
end


for balance, module in pairs(pickers.load()) do
    describe("tiers around " .. balance, function()
        local all, peers

        before_each(function()
            all = tiers.new(module, "a")
            peers = {
                a1 = new_peer("a1", { zone = "a" }),
                a2 = new_peer("a2", { zone = "a" }),
                a3 = new_peer("a3", { zone = "a" }),
                b1 = new_peer("b1", { zone = "b" }),
                none = new_peer("none"),
                spare = new_peer("spare", { zone = "a", backup = true }),
            }
            for _, peer in pairs(peers) do
                all:put(peer, 1)
            end
        end)

        it("prefer the zone while half of it is fit", function()
            assert.same("a1 a2 a3", picked(all))
            all:rest(peers.a1)
            assert.same("a2 a3", picked(all))
            all:rest(peers.a2)
            assert.same("a3 b1 none", picked(all))
            all:put(peers.a1, 1)
            assert.same("a1 a3", picked(all))
        end)

        it("count only the peers that are there", function()
            all:drop(peers.a1)
            all:drop(peers.a1)
            all:rest(peers.a2)
            assert.same("a3", picked(all))
            all:drop(peers.a2)
            all:drop(peers.a3)
            assert.same("b1 none", picked(all))
        end)

        it("give backups when no primary is left, tried ones included",
           function()
            local tried = {}
            for _, name in ipairs({ "a1", "a2", "a3" }) do
                tried[peers[name]] = true
            end
            assert.same("b1 none", picked(all, tried))
            tried[peers.b1], tried[peers.none] = true, true
            assert.same("spare", picked(all, tried))
            tried[peers.spare] = true
            assert.same("", picked(all, tried))
        end)

        it("take any peer without a zone to prefer", function()
            local plain = tiers.new(module)
            for _, peer in pairs(peers) do
                plain:put(peer, 1)
            end
            assert.same("a1 a2 a3 b1 none", picked(plain))
        end)
    end)
end
