-- Proves who gets how much, and when: exact shares in every window, and that a
-- change moves nobody but the peer that changed.

local named = require("test.lua.named")
local picker_module = require("reloadless.balance.picker.round_robin")

local random = math.random

local round_robin = { new = function()
    return named(picker_module.new())
end }


-- @return a picker of n peers (numbers), their weights, and the sum of these
local function random_picker(n, high)
    local picker, weights, sum = round_robin.new(), {}, 0
    for peer = 1, n do
        weights[peer] = random(high)
        sum = sum + weights[peer]
        picker:set(peer, weights[peer])
    end
    return picker, weights, sum
end


local function picks(picker, n)
    local out = {}
    for i = 1, n do
        out[i] = picker:pick()
    end
    return out
end


describe("round robin", function()
    it("gives exact shares in every window of as many picks as weights",
       function()
        for _, case in ipairs({ { 1, 1 }, { 2, 1 }, { 2, 5 }, { 3, 100 },
                                { 10, 10 }, { 50, 3 }, { 20, 300 },
                                { 2, 65535 } })
        do
            local picker, weights, sum = random_picker(case[1], case[2])
            local given = picks(picker, 2 * sum + 7)
            local counts, wrong = {}, 0
            for peer in ipairs(weights) do
                counts[peer] = 0
            end
            for i, peer in ipairs(given) do
                -- the window slides; only the peers that enter or leave it
                -- change their count
                counts[peer] = counts[peer] + 1
                local left = given[i - sum]
                if left then
                    counts[left] = counts[left] - 1
                    wrong = wrong + (left ~= peer and 1 or 0)
                elseif i == sum then
                    assert.same(weights, counts)
                end
            end
            assert.same(0, wrong)
        end
    end)

    it("bounds its points, whatever the weights, and keeps the shares",
       function()
        for _, case in ipairs({
            { 65535, points = 100 },
            { 65532, 32766, points = 150 },
            { 65535, 65534, 1, points = 2 ^ 17 },
            { 65535, 4096, points = 2 ^ 17 },
        }) do
            local picker, sum = round_robin.new(), 0
            local function weight_of(peer)
                return case[peer % #case + 1]
            end
            for peer = 1, 100 do
                sum = sum + weight_of(peer)
                picker:set(peer, weight_of(peer))
            end
            picker:pick()
            local size = picker.real.ring.size
            assert.is_true(size <= case.points)
            local counts = {}
            for _, peer in ipairs(picks(picker, size)) do
                counts[peer] = (counts[peer] or 0) + 1
            end
            for peer = 1, 100 do
                local fair = size * weight_of(peer) / sum
                -- a weight below half a point has a whole one
                assert(math.abs(counts[peer] - fair) <= 1)
            end
        end
    end)

    it("spaces the picks of a peer evenly", function()
        -- 1 heavy among 100 light: never twice in a row, never long without
        local picker = round_robin.new()
        picker:set("heavy", 50)
        for peer = 1, 100 do
            picker:set(peer, 1)
        end
        local before, gaps = nil, 0
        for i = 1, 3000 do
            if picker:pick() == "heavy" then
                gaps = before and math.max(gaps, i - before) or gaps
                before = i
            end
        end
        assert.is_true(gaps < 20)
    end)

    it("goes round peers of equal weight, each once a turn, in one order",
       function()
        for _, weight in ipairs({ 1, 7 }) do
            local picker = round_robin.new()
            for peer = 1, 40 do
                picker:set(peer, weight)
            end
            local first, seen = picks(picker, 40), {}
            for _, peer in ipairs(first) do
                assert.is_nil(seen[peer])
                seen[peer] = true
            end
            assert.same(first, picks(picker, 40))
            assert.same(first, picks(picker, 40))
        end
    end)

    it("starts elsewhere in each picker, in another order", function()
        local starts, orders = {}, {}
        for _ = 1, 200 do
            local picker = round_robin.new()
            for peer = 1, 10 do
                picker:set(peer, 1)
            end
            local turn = picks(picker, 10)
            starts[turn[1]] = true
            orders[table.concat(turn, " ")] = true
        end
        local different = 0
        for _ in pairs(orders) do
            different = different + 1
        end
        assert.is_true(different > 180)
        for peer = 1, 10 do
            assert.is_true(starts[peer], "peer " .. peer .. " never starts")
        end
    end)

    it("has nobody to pick when empty, before and after", function()
        local picker = round_robin.new()
        assert.is_nil(picker:pick())
        picker:set("a", 1)
        assert.same("a", picker:pick())
        picker:remove("a")
        picker:remove("a")
        assert.is_nil(picker:pick())
        picker:set("a", 3)
        assert.same({ "a", "a", "a" }, picks(picker, 3))
    end)

    it("stays exact after a million turns", function()
        local picker = round_robin.new()
        picker:set("a", 1)
        picks(picker, 1e6)
        picker:set("b", 3)
        local counts = { a = 0, b = 0 }
        for _ = 1, 4000 do
            local peer = picker:pick()
            counts[peer] = counts[peer] + 1
        end
        assert.same({ a = 1000, b = 3000 }, counts)
    end)
end)


describe("round robin under change", function()
    -- Peers 1 to n stay; others come, go and get other weights at random.
    local function churn(picker, others)
        local peer = "other" .. random(others)
        if random(3) == 1 then
            picker:remove(peer)
        else
            picker:set(peer, random(9))
        end
    end

    it("leaves the turns of the peers that stay as they were", function()
        local picker, _, sum = random_picker(12, 6)
        local turn = picks(picker, sum)
        local i = 0
        for step = 1, 20000 do
            if step % 3 == 0 then
                churn(picker, 15)
            end
            local peer = picker:pick()
            if type(peer) == "number" then
                i = i % sum + 1
                assert(peer == turn[i], "out of turn")
            end
        end
    end)

    it("is no change when the weight stays", function()
        local picker, weights, sum = random_picker(10, 5)
        local turn = picks(picker, sum)
        for i = 1, 3 * sum do
            local peer = random(10)
            picker:set(peer, weights[peer])
            assert(picker:pick() == turn[(i - 1) % sum + 1], "out of turn")
        end
    end)

    it("gives nobody more or less than its fair share and one pick from a"
       .. " change on", function()
        for _ = 1, 300 do
            local picker, weights, sum = random_picker(random(20), 9)
            picks(picker, random(3 * sum))
            local changed = random(#weights + 1)
            weights[changed] = random(30)
            picker:set(changed, weights[changed])

            local real = picker.real
            local function position()
                return real.ring.positions[real.place - 1] + 1
            end
            local start, counts, turns = position(), {}, 0
            local after = start
            for _ = 1, 200 do
                local before = after
                local peer = picker:pick()
                after = position()
                turns = turns + (after <= before and 1 or 0)
                counts[peer] = (counts[peer] or 0) + 1
                for other, weight in ipairs(weights) do
                    local fair = weight * (turns
                                           + (after - start) / 2 ^ 32)
                    local off = (counts[other] or 0) - fair
                    assert(off <= 1 + 1e-6, "too many")
                    assert(off >= -1 - 1e-6, "too few")
                end
            end
        end
    end)

    it("lets peers that come and go all the time starve nobody", function()
        local picker = round_robin.new()
        for peer = 1, 5 do
            picker:set(peer, 1)
        end
        local longest, waits = 0, { 0, 0, 0, 0, 0 }
        for i = 1, 10000 do
            picker:remove("flap")
            picker:set("flap", i % 7 + 1)
            local peer = picker:pick()
            for other = 1, 5 do
                waits[other] = other == peer and 0 or waits[other] + 1
                longest = math.max(longest, waits[other])
            end
        end
        -- five stay, and a flapping one of weight 7 at most is between them
        assert.is_true(longest < 60)
    end)
end)


describe("round robin with tried peers", function()
    it("goes round those that are left", function()
        local picker = random_picker(10, 1)
        local counts = {}
        for _ = 1, 70 do
            local peer = picker:pick({ [3] = true, [4] = true, [5] = true })
            counts[peer] = (counts[peer] or 0) + 1
        end
        assert.same({ [1] = 10, [2] = 10, [6] = 10, [7] = 10, [8] = 10,
                      [9] = 10, [10] = 10 }, counts)
    end)
end)


describe("round robin among very many", function()
    it("walks a stretch again and again, and gives exact shares in the end",
       function()
        local picker, _, sum = random_picker(1500, 3)
        local first = picks(picker, 128)
        for round = 2, 16 do
            local again = picks(picker, 128)
            assert.same(first, again, "round " .. round)
        end
        local counts, weights = {}, picker.real.ring.weights
        for _ = 1, 16 * sum do
            local peer = picker:pick()
            counts[peer] = (counts[peer] or 0) + 1
        end
        local off = 0
        for peer, weight in pairs(weights) do
            off = math.max(off, math.abs(counts[peer.name] - 16 * weight))
        end
        -- the ring's last stretch is shorter, and ends at another place
        assert.is_true(off <= 16 * 3)
    end)

    it("goes on where it was when the list changes", function()
        local picker = random_picker(1500, 1)
        local counts = {}
        for i = 1, 16 * 1500 do
            if i % 100 == 0 then
                picker:set("flap", i % 200 == 0 and 1 or 2)
            end
            local peer = picker:pick()
            counts[peer] = (counts[peer] or 0) + 1
        end
        local behind = 0
        for peer = 1, 1500 do
            local count = counts[peer] or 0
            assert(count <= 33, "peer " .. peer .. ": " .. count)
            behind = behind + (count < 16 and 1 or 0)
        end
        -- those of the last stretch, which is not walked to its end
        assert.is_true(behind <= 128)
    end)
end)
