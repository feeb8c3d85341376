-- Proves what ewma learns of a peer from each outcome of a try, seen by which
-- of two peers it then picks: of two it always compares both.

local ewma = require("reloadless.balance.picker.ewma")
local new_peer = require("test.lua.peer")

local clock = ngx.clock


describe("ewma", function()
    local picker, known, other

    local function assert_picks(peer)
        for _ = 1, 20 do
            assert.equal(peer.key, picker:pick().key)
        end
    end

    before_each(function()
        clock.now = 1000
        picker = ewma.new()
        known, other = new_peer("known"), new_peer("other")
        picker:set(known, 1)
        picker:set(other, 1)
        ewma.observe(known, 0.1, "answered")
    end)

    describe("answered", function()
        it("counts at once when it is slower", function()
            ewma.observe(other, 0.09, "answered")
            assert_picks(other)
            ewma.observe(other, 0.11, "answered")
            assert_picks(known)
        end)

        it("counts bit by bit when it is faster", function()
            ewma.observe(other, 1, "answered")
            for second = 0, 40 do
                clock.now = 1000 + second
                ewma.observe(known, 0.6, "answered")
                ewma.observe(other, 0.5, "answered")
                if second <= 8 then
                    assert_picks(known)
                end
            end
            assert_picks(other)
        end)
    end)

    describe("failed", function()
        it("is slower than all that was known, however quick", function()
            ewma.observe(other, 0.06, "answered")
            assert_picks(other)
            ewma.observe(other, 0, "failed")
            assert_picks(known)
        end)

        it("is slow when nothing was known, even how long it took", function()
            for _, seconds in ipairs({ 0, 0.01, false }) do
                other.latency = false
                ewma.observe(other, seconds or nil, "failed")
                ewma.observe(known, 0.9, "answered")
                assert_picks(known)
            end
        end)

        it("counts as long as it took, when that is longer", function()
            ewma.observe(other, 5, "failed")
            ewma.observe(known, 4, "answered")
            assert_picks(known)
            ewma.observe(known, 6, "answered")
            assert_picks(other)
        end)

        it("is forgiven with time", function()
            ewma.observe(other, 0, "failed")
            for _ = 1, 50 do
                clock.now = clock.now + 1
                ewma.observe(known, 0.1, "answered")
            end
            assert_picks(other)
        end)
    end)

    describe("left", function()
        it("tells nothing while nothing is known", function()
            for _, seconds in ipairs({ 0, 9, false }) do
                ewma.observe(other, seconds or nil, "left")
                assert.is_falsy(other.latency)
                assert_picks(other)
            end
        end)

        it("makes no peer faster, nor what is known older", function()
            ewma.observe(other, 0.11, "answered")
            for _ = 1, 100 do
                clock.now = clock.now + 0.01
                ewma.observe(other, 0, "left")
                ewma.observe(other, nil, "left")
            end
            assert_picks(known)
            assert.same({ 0.11, 1000 }, { other.latency, other.latency_at })
        end)

        it("counts at once when the client waited longer than known",
           function()
            ewma.observe(other, 0.09, "answered")
            assert_picks(other)
            ewma.observe(other, 0.2, "left")
            assert_picks(known)
        end)
    end)
end)
