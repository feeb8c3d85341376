-- Looks whether a structure is whole, whatever has become of it: what it holds
-- is counted one by one, and compared with what it should hold. Each function
-- raises what is wrong.

local rings = require("reloadless.structure.ring")

local abs = math.abs
local random = math.random
local tobit = require("bit").tobit

local _M = {}


-- How many points each peer has, and the sum of where they are.
local function count(counts, sums, peer, position)
    counts[peer] = (counts[peer] or 0) + 1
    sums[peer] = (sums[peer] or 0) + position
end


local function same(found, expected, what)
    for peer, value in pairs(expected) do
        assert(found[peer] == value, what)
    end
    for peer in pairs(found) do
        assert(expected[peer], what .. " of a peer that is not there")
    end
end


--- The points of each peer, their order, and the ways to find them.
-- @param ring that is settled
-- @param weights by peer: what it was given
function _M.ring(ring, weights)
    local size, peers = ring.size, 0
    local counts, sums, wanted, wanted_sums = {}, {}, {}, {}
    for peer, weight in pairs(weights) do
        peers = peers + 1
        ring.points_of(peer, weight / ring.unit, function(position)
            count(wanted, wanted_sums, peer, position)
        end)
    end
    for at = 0, size - 1 do
        local peer, position = ring:point(at)
        count(counts, sums, peer, position)
        local before = at > 0 and ring.positions[at - 1] or -2 ^ 31
        assert(before < position
               or before == position
                  and (at == 0 or ring.numbers[at - 1] <= ring.numbers[at]),
               "points are out of order")
    end
    assert(ring.count == peers, "the number of peers")
    same(counts, wanted, "the number of points")
    same(sums, wanted_sums, "the positions")

    for _ = 1, size > 0 and 20 or 0 do
        local from = tobit(random() * rings.circle)
        local place = ring:find(from)
        assert(place == size or ring.positions[place] >= from, "find")
        assert(place == 0 or ring.positions[place - 1] < from, "find")
    end
end


--- The share of draws of each item: of its own place, and of others.
-- @param sampler that has drawn since its last change
-- @param weights by item
function _M.sampler(sampler, weights)
    local size, sum, items = sampler.size, 0, 0
    for item, weight in pairs(weights) do
        sum, items = sum + weight, items + 1
        assert(sampler.items[sampler.places[item]] == item, "the place")
    end
    assert(size == items, "the number of items")

    local shares = {}
    for place = 1, size > 1 and size or 0 do
        local stay, alias = sampler.stay[place], sampler.alias[place]
        shares[place] = (shares[place] or 0) + math.min(stay, 1)
        shares[alias] = (shares[alias] or 0) + math.max(1 - stay, 0)
    end
    for place, share in pairs(shares) do
        local fair = weights[sampler.items[place]] * size / sum
        assert(abs(share - fair) < 1e-6 * math.max(fair, 1), "the share")
    end
end


--- The smallest keys, searched for among all.
-- @param race a tournament
-- @param keys by item: a list of its two keys
function _M.tournament(race, keys)
    local best, best_keys, items = nil, nil, 0
    for item, own in pairs(keys) do
        items = items + 1
        assert(race.items[item.place] == item, "the place")
        if not best or own[1] < best_keys[1]
           or own[1] == best_keys[1] and own[2] < best_keys[2]
        then
            best, best_keys = item, own
        end
    end
    assert(race.size == items, "the number of items")
    assert(race:first() == best or keys[race:first()][1] == best_keys[1]
           and keys[race:first()][2] == best_keys[2], "not the smallest keys")
end


return _M
