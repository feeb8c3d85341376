-- Consistent hashing with several probes (Appleton and O'Reilly, "Multi-probe
-- consistent hashing", 2015): peers own points on a ring, a key is hashed to
-- several places, and the place whose next point is nearest decides. Few points
-- then spread as evenly as many do with one probe, so that a change of one peer
-- among 10,000 is a short merge. A peer that comes takes keys from the others
-- only for itself, one that goes leaves its keys to the others.

local bit = require("bit")
local rings = require("reloadless.ring")

local arshift = bit.arshift
local band = bit.band
local bxor = bit.bxor
local byte = string.byte
local ceil = math.ceil
local circle = rings.circle
local crc32 = ngx.crc32_short
local distance = rings.distance
local floor = math.floor
local log = math.log
local lshift = bit.lshift
local max = math.max
local min = math.min
local owner = rings.owner
local pairs = pairs
local rshift = bit.rshift
local setmetatable = setmetatable
local tobit = bit.tobit

local _M = {}
local mt = { __index = _M }

-- A slow start would move keys at each step.
_M.whole_weights = true

local probes = 4
local points_per_weight = 48
-- Weights above this are scaled down, all by the same power of two.
local full_weight = 32


-- Robert Jenkins' hash of a 32-bit integer by shifts and sums: each bit of the
-- number changes half of the others.
local function mix(a)
    a = tobit(tobit(a + 0x7ed55d16) + lshift(a, 12))
    a = bxor(bxor(a, 0xc761c23c), rshift(a, 19))
    a = tobit(tobit(a + 0x165667b1) + lshift(a, 5))
    a = bxor(tobit(a + 0xd3a2646c), lshift(a, 9))
    a = tobit(tobit(a + 0xfd7046c5) + lshift(a, 3))
    return (bxor(bxor(a, 0xb55a4f09), rshift(a, 16)))
end


local function hash_text(text, seed)
    local h = seed
    for i = 1, #text do
        h = mix(bxor(h, byte(text, i)) + i)
    end
    return h
end


local function points(peer, weight, add)
    -- two hashes: addresses that share one do not share their points
    local a, b = hash_text(peer.key, 1), hash_text(peer.key, 2)
    for i = 1, max(1, floor(points_per_weight * weight + 0.5)) do
        a = mix(tobit(a + i))
        add(bxor(a, b))
    end
end


local function unit_of(weights)
    local most = 1
    for _, weight in pairs(weights) do
        most = max(most, weight)
    end
    return 2 ^ max(0, ceil(log(most / full_weight) / log(2)))
end


--- @return a picker without peers
function _M.new()
    return setmetatable({ ring = rings.new(points, unit_of) }, mt)
end


--- Adds a peer, or gives it another weight (1 and up).
function _M:set(peer, weight)
    self.ring:set(peer, weight)
end


--- Takes a peer out.
function _M:remove(peer)
    self.ring:remove(peer)
end


-- Where a key is looked up: from a place on, at equal steps.
local function places_of(key)
    local base = mix(tobit(crc32(key)))
    return base, mix(base)
end


-- As pick, among the peers that were not tried.
local function pick_other(ring, tried, place, step)
    local size = ring.size
    local best, nearest = nil, circle
    for _ = 1, probes do
        local at = ring:find(place)
        for _ = 1, size do
            local peer, position = ring:point(at % size)
            if not tried[peer] then
                local far = (position - place) % circle
                if far < nearest then
                    best, nearest = peer, far
                end
                break
            end
            at = at + 1
        end
        place = tobit(place + step)
    end
    return best
end


-- Of two places the one that has the shorter way to its next point. Without a
-- branch: which one it is cannot be foretold.
local function nearer(ring, place, way, other)
    local other_way = distance(ring, other)
    -- all bits are set when the other is nearer
    local is_nearer = arshift(tobit(other_way - way), 31)
    return bxor(place, band(bxor(place, other), is_nearer)),
           min(way, other_way)
end


--- @param tried set of peers that must not be picked, or nil
-- @param key the text to hash
-- @return a peer, or nil when none is left
function _M:pick(tried, key)
    local ring = self.ring
    if not ring.is_laid then
        ring:settle()
    end
    if ring.size == 0 then
        return nil
    end

    local place, step = places_of(key)
    if tried then
        return pick_other(ring, tried, place, step)
    end

    -- as many as there are probes; LuaJIT would not compile a loop along
    local second = tobit(place + step)
    local third = tobit(second + step)
    local best, way = nearer(ring, place, distance(ring, place), second)
    best, way = nearer(ring, best, way, third)
    best = nearer(ring, best, way, tobit(third + step))
    return owner(ring, best)
end


return _M
