-- Consistent hashing with several probes (Appleton and O'Reilly, "Multi-probe
-- consistent hashing", 2015): peers own points on a ring, a key is hashed to
-- several places, and the place whose next point is nearest decides. Few points
-- then spread as evenly as many do with one probe, so that a change of one peer
-- among 10,000 is a short merge. A peer that comes takes keys from the others
-- only for itself, one that goes leaves its keys to the others.

local bit = require("bit")
local rings = require("reloadless.ring")

local bxor = bit.bxor
local byte = string.byte
local ceil = math.ceil
local circle = rings.circle
local crc32 = ngx.crc32_short
local floor = math.floor
local log = math.log
local huge = math.huge
local max = math.max
local min = math.min
local pairs = pairs
local rshift = bit.rshift
local setmetatable = setmetatable
local tobit = bit.tobit

local _M = {}
local mt = { __index = _M }

-- A slow start would move keys at each step.
_M.whole_weights = true

local probes = 8
local points_per_weight = 32
-- Weights above this are scaled down, all by the same power of two.
local full_weight = 32


-- The low 32 bits of a product, which as a double would lose them.
local function multiply(a, b)
    a = a % circle
    local low = a % 65536
    return tobit((((a - low) / 65536 * b) % 65536) * 65536 + low * b)
end


-- The finalizer of MurmurHash3.
local function mix(h)
    h = multiply(bxor(h, rshift(h, 16)), 0x85ebca6b)
    h = multiply(bxor(h, rshift(h, 13)), 0xc2b2ae35)
    return bxor(h, rshift(h, 16))
end


local function hash_text(text, seed)
    local h = tobit(seed)
    for i = 1, #text do
        h = mix(bxor(h, byte(text, i)) + i)
    end
    return h
end


local function points(peer, weight, add)
    -- two hashes: addresses that share one do not share their points
    local a, b = hash_text(peer.key, 1), hash_text(peer.key, 2)
    for i = 1, max(1, floor(points_per_weight * weight + 0.5)) do
        add(mix(bxor(mix(a + i * 0x9e3779b1), b)) % circle)
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
    local base = crc32(key)
    return mix(base) % circle, mix(bxor(base, 0x5bd1e995)) % circle
end


-- As pick, among the peers that were not tried.
local function pick_other(ring, tried, place, step)
    local size = ring.size
    local best, nearest = nil, circle
    for _ = 1, probes do
        place = (place + step) % circle
        local at = ring:find(place)
        for _ = 1, size do
            local peer, position = ring:point(at % size)
            if not tried[peer] then
                local distance = (position - place) % circle
                if distance < nearest then
                    best, nearest = peer, distance
                end
                break
            end
            at = at + 1
        end
    end
    return best
end


--- @param tried set of peers that must not be picked, or nil
-- @param key the text to hash
-- @return a peer, or nil when none is left
function _M:pick(tried, key)
    local ring = self.ring
    ring:settle()
    if ring.size == 0 then
        return nil
    end

    local place, step = places_of(key)
    if tried then
        return pick_other(ring, tried, place, step)
    end

    local nearest = huge
    for _ = 1, probes do
        place = (place + step) % circle
        nearest = min(nearest, ring:next(place))
    end
    return ring:owner(nearest)
end


return _M
