-- Proves that keys spread as evenly as nginx's "hash … consistent" spreads the
-- same keys over the same peers, or better, and that a change moves only the
-- keys that it must.

local hash = require("reloadless.balance.picker.hash")

local crc32 = ngx.crc32_short
local floor = math.floor
local format = string.format
local max = math.max


-- ngx_http_upstream_hash_module, consistent: 160 points for each unit of
-- weight, each the CRC-32 of host, NUL, port and the point before it.
local function ketama(peers)
    local points = {}
    for _, peer in ipairs(peers) do
        local host, port = peer.key:match("^(.*):(%d+)$")
        local previous = 0
        for _ = 1, 160 * peer.weight do
            local bytes = {}
            for i = 1, 4 do
                bytes[i] = string.char(floor(previous / 256 ^ (i - 1)) % 256)
            end
            previous = crc32(host .. "\0" .. port .. table.concat(bytes))
            points[#points + 1] = { previous, peer }
        end
    end
    table.sort(points, function(a, b)
        return a[1] < b[1]
    end)

    return function(key)
        local wanted, low, high = crc32(key), 1, #points + 1
        while low < high do
            local middle = floor((low + high) / 2)
            if points[middle][1] < wanted then
                low = middle + 1
            else
                high = middle
            end
        end
        return points[low <= #points and low or 1][2]
    end
end


local function new_peers(count, net, weight_of)
    local peers = {}
    for i = 1, count do
        peers[i] = { key = format("10.%d.%d.%d:8080", net, floor(i / 250),
                                  i % 250 + 1),
                     weight = weight_of and weight_of(i) or 1 }
    end
    return peers
end


local function picker_of(peers)
    local picker = hash.new()
    for _, peer in ipairs(peers) do
        picker:set(peer, peer.weight)
    end
    return picker
end


local function owners(find, keys)
    local found = {}
    for i = 1, keys do
        found[i] = find("session-" .. i)
    end
    return found
end


-- The load of the peer that has most for its weight, over the average.
local function peak(found, peers)
    local counts, weights, most = {}, 0, 0
    for _, peer in ipairs(found) do
        counts[peer] = (counts[peer] or 0) + 1
    end
    for _, peer in ipairs(peers) do
        weights = weights + peer.weight
    end
    for _, peer in ipairs(peers) do
        local fair = #found * peer.weight / weights
        most = math.max(most, (counts[peer] or 0) / fair)
    end
    return most
end


local function ours(picker)
    return function(key)
        return picker:pick(nil, key)
    end
end


local function moved(before, after)
    local n = 0
    for i, peer in ipairs(before) do
        n = n + (after[i] ~= peer and 1 or 0)
    end
    return n / #before
end


local function up_to_five(i)
    return i % 5 + 1
end


describe("hash", function()
    it("spreads keys no worse than nginx, over sets of peers", function()
        for _, case in ipairs({ { 3, sets = 20 }, { 10, sets = 12 },
                                { 100, sets = 2 },
                                { 10, up_to_five, sets = 40 },
                                { 60, up_to_five, sets = 8 } })
        do
            local our_sum, their_sum, sets = 0, 0, case.sets
            for net = 1, sets do
                local peers = new_peers(case[1], net, case[2])
                local keys = case[1] * 1000
                local picker = picker_of(peers)
                our_sum = our_sum + peak(owners(ours(picker), keys), peers)
                their_sum = their_sum
                            + peak(owners(ketama(peers), keys), peers)
            end
            print(format("peak to average, %d peers%s: %.3f, nginx %.3f",
                         case[1], case[2] and " of weights 1 to 5" or "",
                         our_sum / sets, their_sum / sets))
            assert.is_true(our_sum <= their_sum)
        end
    end)

    it("moves only the keys of the peer that comes or goes, as fairly as"
       .. " nginx", function()
        local our_sum, their_sum, sets, keys = 0, 0, 5, 20000
        for net = 1, sets do
            local peers = new_peers(50, net)
            local picker = picker_of(peers)
            local before = owners(ours(picker), keys)
            local theirs = owners(ketama(peers), keys)
            local gone = table.remove(peers, 20)
            picker:remove(gone)
            local after = owners(ours(picker), keys)
            for i, peer in ipairs(before) do
                assert(after[i] ~= gone)
                assert(peer == gone or after[i] == peer,
                       "a key moved for nothing")
            end
            local their_after = owners(ketama(peers), keys)
            our_sum = our_sum + math.abs(moved(before, after) - 1 / 50)
            their_sum = their_sum
                        + math.abs(moved(theirs, their_after) - 1 / 50)

            -- and it gets its own back
            picker:set(gone, 1)
            assert.same(0, moved(before, owners(ours(picker), keys)))
        end
        print(format("moved when 1 of 50 goes: off by %.4f, nginx %.4f",
                     our_sum / sets, their_sum / sets))
        assert.is_true(our_sum <= their_sum)
    end)

    it("moves keys only to a peer whose weight grows, or from one whose weight"
       .. " shrinks, whatever the weights", function()
        local peers = new_peers(20, 3, function(i)
            return ({ 1, 3, 10, 20, 31 })[i % 5 + 1]
        end)
        local picker, changed = picker_of(peers), peers[7]
        local function change(weight)
            local grows = weight > changed.weight
            local before = owners(ours(picker), 1000)
            changed.weight = weight
            picker:set(changed, weight)
            for i, peer in ipairs(owners(ours(picker), 1000)) do
                local was = before[i]
                assert(peer == was or (grows and peer or was) == changed,
                       format("a key moved for nothing at weight %d", weight))
            end
        end
        for _, heaviest in ipairs({ 31, 65535 }) do
            peers[8].weight = heaviest
            picker:set(peers[8], heaviest)
            for _, weight in ipairs({ 1, 6, 7, 32, 33, 64, 65, 100, 101, 128,
                                      129, 1000, 1001, 1601, 25601, 65535 })
            do
                change(weight)
                change(max(1, weight - 1))
                change(weight)
            end
            change(1)
        end
    end)

    it("gives keys by weight, from 1 to 65535", function()
        local most = 0
        for net = 1, 4 do
            for _, weights in ipairs({ { 1, 100 }, { 5, 7, 200 },
                                       { 3000, 20000, 65535 },
                                       { 1, 10, 100, 1000, 10000 } })
            do
                local peers = new_peers(30, net, function(i)
                    return weights[i % #weights + 1]
                end)
                local shares, fair, sum = {}, {}, 0
                for _, peer in ipairs(peers) do
                    fair[peer.weight] = (fair[peer.weight] or 0) + peer.weight
                    sum = sum + peer.weight
                end
                local found = owners(ours(picker_of(peers)), 20000)
                for _, peer in ipairs(found) do
                    shares[peer.weight] = (shares[peer.weight] or 0) + 1
                end
                for weight, own in pairs(fair) do
                    local expected = #found * own / sum
                    -- of fewer keys chance would decide
                    if expected > 1000 then
                        local off = math.abs(shares[weight] / expected - 1)
                        most = math.max(most, off)
                    end
                end
            end
        end
        assert(most < 0.1, "off by " .. most)
    end)

    it("depends on the peers alone, not on how they came", function()
        local peers = new_peers(30, 4)
        local one = picker_of(peers)
        local other = hash.new()
        for i = #peers, 1, -1 do
            other:set(peers[i], 5)
            other:pick(nil, "x")
            other:set(peers[i], 1)
        end
        local passing = { key = "10.9.9.9:1" }
        other:set(passing, 1)
        other:remove(passing)
        local keys = 3000
        assert.same(0, moved(owners(ours(one), keys),
                             owners(ours(other), keys)))
    end)

    it("goes on to another peer when one was tried, the same for each key",
       function()
        local picker = picker_of(new_peers(9, 5))
        for i = 1, 200 do
            local order = {}
            for _ = 1, 2 do
                local tried = {}
                for n = 1, 4 do
                    local peer = picker:pick(tried, "key" .. i)
                    assert(peer and not tried[peer])
                    tried[peer] = true
                    assert(peer == (order[n] or peer))
                    order[n] = peer
                end
            end
        end
    end)

    it("is compiled for good after some picks", function()
        local picker = picker_of(new_peers(10, 5))
        local function pick_many()
            for _ = 1, 20000 do
                picker:pick(nil, "key" .. math.random(1e6))
            end
        end
        pick_many()
        local started = 0
        local function count(what)
            started = started + (what == "start" and 1 or 0)
        end
        jit.attach(count, "trace")
        pick_many()
        jit.attach(count)
        assert.same(0, started)
    end)

    it("has nobody when empty, and bears any weight", function()
        local picker = hash.new()
        assert.is_nil(picker:pick(nil, "x"))
        local light, heavy = { key = "10.0.0.1:1" }, { key = "10.0.0.2:1" }
        picker:set(light, 1)
        assert.same(light, picker:pick(nil, "x"))
        picker:set(heavy, 65535)
        assert.is_true(picker:pick(nil, "x") ~= nil)
        local points = 0
        for _, ring in pairs(picker.rings) do
            points = points + ring.size
        end
        assert.is_true(points <= 48 + 300)
        picker:remove(light)
        picker:remove(heavy)
        assert.is_nil(picker:pick(nil, "x"))
    end)
end)
