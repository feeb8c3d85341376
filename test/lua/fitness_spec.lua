-- Proves max_fails and fail_timeout as nginx means them, that never all peers
-- are out, and slow start, on a clock of the spec's own.

local fitness = require("reloadless.balance.fitness")
local new_peer = require("test.lua.peer")
local round_robin = require("reloadless.balance.picker.round_robin")

-- The judge asks for the time as a function.
local function at(now)
    return function()
        return now
    end
end


local function new(settings, count, slow_start)
    local judge, peers = fitness.new(), {}
    judge:use(round_robin, nil, 0)
    for i = 1, count do
        peers[i] = new_peer(tostring(i), {
            weight = 10, slow_start = slow_start,
            max_fails = settings.max_fails,
            fail_timeout = settings.fail_timeout,
        })
        judge:join(peers[i], false, 0)
    end
    return judge, peers
end


-- How often each peer is picked, of n picks at a time.
local function shares(judge, peers, n, now)
    local counts = {}
    for i, peer in ipairs(peers) do
        counts[i], counts[peer] = 0, i
    end
    judge:tend(now)
    for _ = 1, n do
        local peer = judge:pick(nil, nil, at(now))
        counts[counts[peer]] = counts[counts[peer]] + 1
    end
    for _, peer in ipairs(peers) do
        counts[peer] = nil
    end
    return counts
end


describe("max_fails", function()
    it("is 1 within 10 s unless set: one failure ejects", function()
        local judge, peers = new({}, 3)
        judge:failed(peers[1], false, 1)
        assert.same({ 0, 30, 30 }, shares(judge, peers, 60, 10.9))
    end)

    it("failures within fail_timeout eject, fewer do not", function()
        local judge, peers = new({ max_fails = 3, fail_timeout = 5 }, 2)
        judge:failed(peers[1], false, 1)
        judge:failed(peers[1], false, 2)
        assert.is_falsy(peers[1].ejected)
        judge:failed(peers[1], false, 8)    -- the others are over
        judge:failed(peers[1], false, 9)
        assert.is_falsy(peers[1].ejected)
        judge:failed(peers[1], false, 10)
        assert.same({ 0, 40 }, shares(judge, peers, 40, 14))
    end)

    it("of 0 ejects never", function()
        local judge, peers = new({ max_fails = 0 }, 2)
        for now = 1, 50 do
            judge:failed(peers[1], false, now / 10)
        end
        assert.same({ 20, 20 }, shares(judge, peers, 40, 6))
    end)

    it("lets an answer after fail_timeout forget failures", function()
        local judge, peers = new({ max_fails = 2, fail_timeout = 5 }, 2)
        judge:failed(peers[1], false, 1)
        judge:answered(peers[1], 7)
        judge:failed(peers[1], false, 7.5)
        assert.is_falsy(peers[1].ejected)
    end)

    it("spares a peer that has closed an idle connection, once", function()
        local judge, peers = new({}, 2)
        peers[1].is_pooled = true
        judge:failed(peers[1], true, 1)
        assert.is_falsy(peers[1].ejected)
        peers[1].is_pooled = true
        judge:failed(peers[1], true, 1)
        assert.is_true(peers[1].ejected)
    end)

    it("spares no peer of which no connection can be kept", function()
        local judge, peers = new({}, 2)
        judge:failed(peers[1], true, 1)
        assert.is_true(peers[1].ejected)
        -- what was kept is gone after a failure
        peers[2].is_pooled = true
        judge:failed(peers[2], true, 1)
        judge:failed(peers[2], true, 20)
        assert.is_true(peers[2].ejected)
    end)
end)


describe("an ejected peer", function()
    it("gets one request after fail_timeout, and is back when it answers",
       function()
        local judge, peers = new({ fail_timeout = 5 }, 2)
        judge:failed(peers[1], false, 0)
        assert.same({ 1, 39 }, shares(judge, peers, 40, 5.1))
        judge:answered(peers[1], 5.2)
        assert.same({ 20, 20 }, shares(judge, peers, 40, 5.3))
    end)

    it("is out again when its probe fails, whatever max_fails is", function()
        local judge, peers = new({ fail_timeout = 5, max_fails = 3 }, 2)
        for _ = 1, 3 do
            judge:failed(peers[1], false, 0)
        end
        assert.same({ 1, 39 }, shares(judge, peers, 40, 5.1))
        judge:failed(peers[1], false, 6)
        assert.same({ 0, 40 }, shares(judge, peers, 40, 10.9))
        assert.same({ 1, 39 }, shares(judge, peers, 40, 11.1))
    end)

    it("is probed again when nobody heard of its probe", function()
        local judge, peers = new({ fail_timeout = 5 }, 2)
        judge:failed(peers[1], false, 0)
        assert.same({ 1, 39 }, shares(judge, peers, 40, 6))
        assert.same({ 1, 39 }, shares(judge, peers, 40, 12))
    end)

    it("serves when all are ejected", function()
        local judge, peers = new({}, 3)
        for _, peer in ipairs(peers) do
            judge:failed(peer, false, 1)
        end
        assert.same({ 10, 10, 10 }, shares(judge, peers, 30, 1.1))
    end)

    it("serves after the backups do", function()
        local judge, peers = new({}, 2)
        local backup = new_peer("b", { weight = 1, backup = true })
        judge:join(backup, false, 0)
        judge:failed(peers[1], false, 1)
        judge:failed(peers[2], false, 1)
        assert.equal(backup, judge:pick(nil, nil, at(1.1)))
        judge:failed(backup, false, 1.2)
        assert.is_falsy(judge:pick(nil, nil, at(1.3)).backup)
    end)

    it("starts anew when it leaves and comes back", function()
        local judge, peers = new({}, 2)
        judge:failed(peers[1], false, 1)
        judge:leave(peers[1])
        judge:join(peers[1], true, 2)
        assert.same({ 20, 20 }, shares(judge, peers, 40, 2))
    end)
end)


describe("slow start", function()
    it("ramps a peer that comes late", function()
        local judge, peers = new({}, 2, 10)
        assert.same({ 200, 200 }, shares(judge, peers, 400, 0))
        peers[3] = new_peer("3", { weight = 10, slow_start = 10 })
        judge:join(peers[3], true, 100)

        local last = 0
        for step = 1, 40 do
            local now = 100 + step / 4
            local counts = shares(judge, peers, 600, now)
            local fair = math.min(1, step / 40)
            local expected = 600 * fair / (2 + fair)
            assert.is_true(math.abs(counts[3] - expected) < 30)
            assert.is_true(counts[3] >= last - 12)
            last = counts[3]
        end
        assert.same({ 200, 200, 200 }, shares(judge, peers, 600, 111))
        assert.same(0, judge.agenda.size)
    end)

    it("ramps a peer that is back from ejection", function()
        local judge, peers = new({ fail_timeout = 5 }, 2, 10)
        judge:failed(peers[1], false, 0)
        shares(judge, peers, 40, 6)
        judge:answered(peers[1], 6)
        local counts = shares(judge, peers, 1000, 7)
        assert.is_true(counts[1] > 30 and counts[1] < 150)
        assert.same({ 500, 500 }, shares(judge, peers, 1000, 20))
    end)

    it("is over when it is taken away", function()
        local judge, peers = new({}, 2)
        peers[3] = new_peer("3", { weight = 10, slow_start = 10 })
        judge:join(peers[3], true, 100)
        peers[3].slow_start = 0
        judge:reweigh(peers[3], 100)
        assert.same({ 20, 20, 20 }, shares(judge, peers, 60, 100))
    end)

    it("does not slow a first start", function()
        local judge, peers = new({}, 4, 60)
        assert.same({ 10, 10, 10, 10 }, shares(judge, peers, 40, 1))
    end)
end)


describe("a full peer", function()
    it("rests until a request has left it, or a moment has passed", function()
        local judge, peers = new({}, 2)
        judge:filled(peers[1], 1)
        assert.same({ 0, 40 }, shares(judge, peers, 40, 1.01))
        judge:freed(peers[1], 1.02)
        assert.same({ 20, 20 }, shares(judge, peers, 40, 1.02))
        judge:filled(peers[1], 2)
        assert.same({ 20, 20 }, shares(judge, peers, 40, 2.1))
    end)
end)
