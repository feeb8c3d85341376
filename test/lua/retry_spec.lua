-- Proves what a retry costs: no more than the logarithm of the peers, whatever
-- was tried before. What Lua executes is counted, by its own hook.

local fitness = require("reloadless.balance.fitness")
local jit = require("jit")
local new_peer = require("test.lua.peer")
local pickers = require("reloadless.balance.picker.list")
local tiers = require("reloadless.balance.tiers")

local log = math.log

-- What a retry may take for each doubling of the peers, and beside that for
-- some steps among peers that were tried.
local per_doubling, beside = 1000, 4000


-- @return the instructions of the virtual machine that a call takes
local function cost(call)
    local count = 0
    -- code that is compiled runs no hook
    jit.off()
    jit.flush()
    debug.sethook(function()
        count = count + 1
    end, "", 1)
    call()
    debug.sethook()
    jit.on()
    return count
end


local function assert_cheap(count, peers, tries)
    local most = (beside + per_doubling * log(peers) / log(2)) * (tries or 1)
    assert(count < most, count .. " instructions, more than " .. most)
end


-- @param weights of the peers, by place
-- @return tiers that are laid, and the peers
local function new_tiers(module, weights)
    local all, peers = tiers.new(module, "a"), {}
    for i, weight in ipairs(weights) do
        peers[i] = new_peer("10.0.0." .. i .. ":80", { weight = weight })
        all:put(peers[i], weight)
    end
    all:pick(nil, "key")
    return all, peers
end


local function list(n, value)
    local values = {}
    for i = 1, n do
        values[i] = value
    end
    return values
end


for balance, module in pairs(pickers.load()) do
    describe("a retry of " .. balance, function()
        it("costs no more among many peers", function()
            for _, n in ipairs({ 10, 1000, 10000 }) do
                local all, peers = new_tiers(module, list(n, 1))
                local picked
                local count = cost(function()
                    picked = all:pick({ [peers[1]] = true }, "key")
                end)
                assert(picked and picked ~= peers[1])
                assert_cheap(count, n)
            end
        end)

        it("finds the light peer beside a heavy one", function()
            local weights = list(9, 1)
            weights[10] = 65535
            local all, peers = new_tiers(module, weights)
            for _ = 1, 20 do
                local picked
                assert_cheap(cost(function()
                    picked = all:pick({ [peers[10]] = true }, "key")
                end), 10)
                assert(picked and picked ~= peers[10])
            end
        end)

        it("comes to the backups when all else was tried", function()
            for _, weight in ipairs({ 1, 50 }) do
                local all, peers = new_tiers(module, list(1000, weight))
                local tried, backups = {}, {}
                for _, peer in ipairs(peers) do
                    tried[peer] = true
                end
                for i = 1, 100 do
                    backups[i] = new_peer("10.0.1." .. i .. ":80",
                                          { backup = true })
                    all:put(backups[i], 1)
                end
                all:pick(tried, "key")
                local count = cost(function()
                    for _ = 1, 100 do
                        local picked = all:pick(tried, "key")
                        assert(picked.backup and not tried[picked])
                        tried[picked] = true
                    end
                end)
                assert_cheap(count, 1100, 100)
                assert.is_nil(all:pick(tried, "key"))
            end
        end)

        it("tries each peer once, until none is left", function()
            for _, n in ipairs({ 1, 2, 7, 300 }) do
                local all = new_tiers(module, list(n, 3))
                local tried = {}
                local count = cost(function()
                    for _ = 1, n do
                        local picked = all:pick(tried, "key")
                        assert(picked and not tried[picked])
                        tried[picked] = true
                    end
                end)
                assert_cheap(count, n, n)
                assert.is_nil(all:pick(tried, "key"))
            end
        end)

        it("finds whoever comes, and misses nobody when others leave",
           function()
            local all, peers = new_tiers(module, list(60, 1))
            local tried, left = {}, 60
            for i = 1, 60 do
                local picked = all:pick(tried, "key" .. i)
                assert(picked and not tried[picked])
                tried[picked] = true
                if i % 2 == 0 then
                    -- it failed, and is ejected
                    all:rest(picked)
                    left = left - 1
                end
            end
            assert.is_nil(all:pick(tried, "key"))
            local late = new_peer("10.0.2.1:80")
            all:put(late, 1)
            assert.equal(late, all:pick(tried, "key"))
            assert.same(30, left)
            assert.same(60, #peers)
        end)
    end)
end


describe("a retry when peers are full", function()
    it("asks some of them, whatever else is due first", function()
        local judge, peers = fitness.new(), {}
        judge:use(pickers.load().round_robin, nil, 0)
        for i = 1, 20 do
            peers[i] = new_peer(tostring(i), { weight = 1, slow_start = 0.1,
                                               fail_timeout = 0.02 })
            judge:join(peers[i], i == 2, 1)
        end
        judge:failed(peers[1], false, 1)
        for i = 3, 20 do
            judge:filled(peers[i], 1)
        end

        assert.is_false(judge:reopen(1))
        -- the ramp and the ejection are due before the full ones
        assert.is_true(judge:reopen(1.01))
        local open = 0
        for i = 3, 20 do
            open = open + (peers[i].full and 0 or 1)
        end
        assert.same(8, open)
        assert.is_true(peers[1].ejected)
    end)

    it("asks none that has failed meanwhile", function()
        local judge = fitness.new()
        judge:use(pickers.load().round_robin, nil, 0)
        local peer = new_peer("1", { weight = 1 })
        judge:join(peer, false, 0)
        judge:filled(peer, 1)
        judge:failed(peer, false, 1)
        assert.is_false(judge:reopen(1.01))
        assert.is_true(peer.ejected)
    end)
end)
