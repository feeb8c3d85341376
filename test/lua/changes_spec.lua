-- Changes the peers of every picker at random and counts what it holds then:
-- 1 to 20,000 peers, weights 1 to 65535, and points that share positions. It is
-- short; CHANGES=100000 makes it long, SEED another one, and MALLOC=1 gives
-- each array a block of its own: valgrind then sees what is written beside it.

local check = require("test.lua.check")
local ffi = require("ffi")

local floor = math.floor
local random = math.random

local changes = tonumber(os.getenv("CHANGES")) or 2000
local seed = tonumber(os.getenv("SEED")) or 20
-- of peers in all steps of a round, so that rounds of many peers are short
local work = 40000
local malloc = os.getenv("MALLOC")
local modules = {}


-- In the test only: loads what keeps arrays with malloc for their memory.
local function use_malloc()
    ffi.cdef("void *calloc(size_t, size_t); void free(void *);")
    local typeof = ffi.typeof
    local function own(declaration)
        if type(declaration) ~= "string" or declaration:sub(-3) ~= "[?]" then
            return typeof(declaration)
        end
        local element = declaration:sub(1, -4)
        local pointer, size = typeof(element .. " *"), ffi.sizeof(element)
        return function(length)
            local block = ffi.C.calloc(length, size)
            assert(block ~= nil)
            return ffi.gc(ffi.cast(pointer, block), ffi.C.free)
        end
    end
    ffi.typeof = own
    for _, name in ipairs({ "points", "ring", "tournament" }) do
        package.loaded["reloadless.structure." .. name] = nil
        require("reloadless.structure." .. name)
    end
    ffi.typeof = typeof
    for _, name in ipairs({ "round_robin", "hash", "least_conn" }) do
        package.loaded["reloadless.balance.picker." .. name] = nil
    end
end


-- A weight from all over 1 to 65535; small ones are as common as great ones.
local function any_weight()
    return floor(2 ^ (random() * 16))
end


-- Few phases and keys: points of different peers share positions.
local function new_peer(i, alike)
    return { key = "10.0.0." .. (alike and i % 7 or i) .. ":80",
             phase = alike and random(0, 3) / 4 or random(),
             active = random(0, 5), paces = {} }
end


local checks = {
    round_robin = function(picker, weights)
        check.ring(picker.ring, weights)
    end,
    hash = function(picker, weights)
        for _, ring in pairs(picker.rings) do
            local own = {}
            for peer, weight in pairs(weights) do
                own[peer] = ring.weights[peer] and weight
            end
            check.ring(ring, own)
        end
    end,
    least_conn = function(picker, weights)
        local keys = {}
        for peer, entry in pairs(picker.entries) do
            assert(entry.weight == weights[peer], "the weight")
            keys[entry] = { peer.active / entry.weight, entry.due }
        end
        check.tournament(picker.race, keys)
    end,
    random = function(picker, weights)
        check.sampler(picker.sampler, weights)
    end,
}
checks.ewma = checks.random


-- Changes one peer or many, as it comes.
local function change(picker, peers, weights, pick_weight)
    local count = random(10) == 1 and random(#peers) or random(3)
    local same = random(4) == 1 and pick_weight()
    local leave = random()
    for _ = 1, count do
        local peer = peers[random(#peers)]
        if random() < leave then
            picker:remove(peer)
            weights[peer] = nil
        else
            weights[peer] = same or pick_weight()
            picker:set(peer, weights[peer])
        end
    end
    return count
end


local function use(picker, weights)
    for i = 1, 5 do
        local peer = picker:pick(nil, "key" .. i)
        assert(peer == nil and next(weights) == nil or weights[peer],
               "a peer that is not there")
        if peer and picker.update then
            picker:update(peer)
        end
    end
end


-- @return how many changes were made to a picker of so many peers
local function round(name, most, limit)
    local picker, peers, weights = modules[name].new(), {}, {}
    local alike = random(2) == 1
    local light = random(2) == 1 and function() return random(5) end
    for i = 1, floor(most ^ random()) do
        peers[i] = new_peer(i, alike)
        weights[peers[i]] = (light or any_weight)()
        picker:set(peers[i], weights[peers[i]])
    end

    local made, done = 0, #peers
    repeat
        done = done + change(picker, peers, weights, light or any_weight)
        made = made + 1
        use(picker, weights)
        if malloc then
            -- which knows nothing of the size of these blocks
            collectgarbage()
        end
    until made >= limit or made == 100 or (done > work and made > 20)
    checks[name](picker, weights)
    return made
end


describe("every picker", function()
    local names = { "round_robin", "hash", "least_conn", "random", "ewma" }
    if malloc then
        use_malloc()
    end
    for _, name in ipairs(names) do
        modules[name] = require("reloadless.balance.picker." .. name)
    end

    it("holds what it was given, after any changes", function()
        math.randomseed(seed)
        for _, name in ipairs(names) do
            local made, rounds = 0, 0
            local total = changes / #names
            while made < total do
                rounds = rounds + 1
                local most = made == 0 and 300 or 20000
                local ok, result = pcall(round, name, most, total - made)
                assert(ok, string.format("SEED=%d, %s, round %d: %s", seed,
                                         name, rounds, result))
                made = made + result
            end
            if changes > 2000 then
                print(string.format("%s: %d changes in %d rounds, seed %d",
                                    name, made, rounds, seed))
            end
        end
    end)
end)
