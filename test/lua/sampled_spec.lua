-- Proves the draw by weight, the two choices, and what the peers get when one
-- is ten times slower.

local ewma = require("reloadless.balance.picker.ewma")
local heap = require("reloadless.structure.heap")
local least_conn = require("reloadless.balance.picker.least_conn")
local named = require("test.lua.named")
local new_peer = require("test.lua.peer")
local random_picker = require("reloadless.balance.picker.random")
local sampler = require("reloadless.structure.sampler")

local clock = ngx.clock
local random = math.random


describe("the sampler", function()
    it("draws by weight after any changes", function()
        local all, weights = sampler.new(), {}
        local items = {}
        for i = 1, 70 do
            items[i] = { i }
        end
        for round = 1, 300 do
            local item = items[random(#items)]
            if random(3) == 1 then
                all:remove(item)
                weights[item] = nil
            else
                weights[item] = random(9)
                all:set(item, weights[item])
            end

            local sum = 0
            for _, weight in pairs(weights) do
                sum = sum + weight
            end
            if round % 100 == 0 and all.size > 1 then
                local counts, draws = {}, 60000
                for _ = 1, draws do
                    local place, other = all:draw_two()
                    assert(place ~= other and all.items[other])
                    local drawn = all.items[place]
                    counts[drawn] = (counts[drawn] or 0) + 1
                end
                for drawn, count in pairs(counts) do
                    local expected = draws * weights[drawn] / sum
                    -- five standard deviations
                    assert.is_true(math.abs(count - expected)
                                   < 5 * math.sqrt(expected))
                end
            end
        end
    end)

end)


-- Open-loop arrivals, one server with many slots per peer: an event queue of
-- answers. Gives the share of the slow peer and the p99 of the answer times.
local function simulate(module, interval)
    local picker = module.new()
    local peers, done, paces = {}, heap.new("place"), { mean = false }
    for i = 1, 10 do
        peers[i] = new_peer(tostring(i), {
            paces = paces, seconds = i == 1 and 0.1 or 0.01, count = 0,
        })
        picker:set(peers[i], 1)
    end

    local times, requests = {}, 40000
    clock.now = 1000
    for i = 1, requests do
        clock.now = clock.now - math.log(random()) * interval
        local answer, at = done:top()
        while answer and at <= clock.now do
            done:remove(answer)
            answer.peer.active = answer.peer.active - 1
            if module.observe then
                module.observe(answer.peer, answer.seconds, "answered")
            end
            if picker.update then
                picker:update(answer.peer)
            end
            answer, at = done:top()
        end

        local peer = picker:pick()
        peer.active = peer.active + 1
        peer.count = peer.count + 1
        if picker.update then
            picker:update(peer)
        end
        local seconds = -math.log(random()) * peer.seconds
        times[i] = seconds
        done:set({ peer = peer, seconds = seconds }, clock.now + seconds)
    end
    table.sort(times)
    return peers[1].count / requests, times[requests * 0.99]
end


describe("with one peer of ten that is ten times slower", function()
    it("least_conn and ewma give it a fair small share", function()
        for _, interval in ipairs({ 0.001, 0.0003 }) do
            local plain, plain_p99 = simulate(random_picker, interval)
            local least, least_p99 = simulate(least_conn, interval)
            local peak, peak_p99 = simulate(ewma, interval)
            print(string.format("slow peer's share and p99 in ms, random:"
                  .. " %.4f %.0f, least_conn: %.4f %.0f, ewma: %.4f %.0f",
                  plain, plain_p99 * 1000, least, least_p99 * 1000, peak,
                  peak_p99 * 1000))
            assert.is_true(least < 0.08 and least > 0.001)
            assert.is_true(peak < 0.02 and peak > 0)
            assert.is_true(peak_p99 <= least_p99)
        end
    end)
end)


describe("least_conn", function()
    it("takes the peer with the fewest requests for its weight", function()
        local picker = named(least_conn.new())
        local weights, active = {}, {}
        for name = 1, 20 do
            weights[name], active[name] = random(5), 0
            picker:set(name, weights[name])
        end
        for _ = 1, 5000 do
            local name = picker:pick()
            for other, weight in ipairs(weights) do
                assert(active[name] / weights[name] <= active[other] / weight)
            end
            local changed = random(2) == 1 and name or random(20)
            active[changed] = math.max(0, active[changed]
                                          + (random(2) == 1 and 1 or -1))
            picker.peers[changed].active = active[changed]
            picker.real:update(picker.peers[changed])
        end
    end)

    it("goes round its idle peers by weight", function()
        local picker, counts = named(least_conn.new()), { 0, 0, 0 }
        for name = 1, 3 do
            picker:set(name, name)
        end
        for _ = 1, 6000 do
            local name = picker:pick()
            counts[name] = counts[name] + 1
            picker.real:update(picker.peers[name])
        end
        assert.same({ 1000, 2000, 3000 }, counts)
    end)

    it("gives a peer of a part of a weight its part, whatever its phase",
       function()
        for phase = 0, 0.99, 0.03 do
            local picker, counts = named(least_conn.new()), { 0, 0, 0, 0, 0 }
            for name = 1, 4 do
                picker:set(name, 1)
            end
            -- as a slow start raises it
            picker:set(5, 0.1)
            picker.peers[5].phase = phase
            picker:remove(5)
            picker:set(5, 0.05)
            for _ = 1, 810 do
                local name = picker:pick()
                counts[name] = counts[name] + 1
                picker.real:update(picker.peers[name])
            end
            assert.is_near(10, counts[5], 1, "phase " .. phase)
        end
    end)

    it("lets what is left of a wait pass as much faster", function()
        local picker, at = named(least_conn.new()), nil
        for name = 1, 4 do
            picker:set(name, 1)
        end
        picker:set(5, 0.05)
        picker.peers[5].phase = 0.5
        picker:remove(5)
        picker:set(5, 0.05)
        for i = 1, 100 do
            local name = picker:pick()
            picker.real:update(picker.peers[name])
            if i == 20 then
                picker:set(5, 1)
            elseif name == 5 then
                at = at or i
            end
        end
        -- it had 10 turns to wait, of which 5 were over
        assert.is_true(at >= 20 and at <= 23, tostring(at))
    end)
end)


describe("least_conn", function()
    it("holds no peer for slow by its first answers, or by a tick", function()
        local picker, paces = named(least_conn.new()), { mean = false }
        for name = 1, 2 do
            picker:set(name, 1)
            picker.peers[name].paces = paces
        end
        for _, seconds in ipairs({ 0.045, 0, 0.001, 0, 0.003 }) do
            least_conn.observe(picker.peers[1], seconds, "answered")
        end
        picker.peers[1].active, picker.peers[2].active = 2, 3
        picker.real:update(picker.peers[1])
        picker.real:update(picker.peers[2])
        assert.same(1, picker:pick())
    end)
end)


describe("every picker", function()
    it("keeps what it has learnt when the list changes", function()
        for _, module in ipairs({ ewma, least_conn, random_picker }) do
            local picker = named(module.new())
            for name = 1, 4 do
                picker:set(name, 1)
            end
            local slow = picker.peers[1]
            slow.active = 50
            slow.latency, slow.latency_at = 5, clock.now
            if picker.real.update then
                picker.real:update(slow)
            end
            for name = 5, 40 do
                picker:set(name, 1)
            end
            picker:remove(2)
            for _ = 1, 200 do
                assert(picker:pick() ~= 1)
            end
        end
    end)
end)
