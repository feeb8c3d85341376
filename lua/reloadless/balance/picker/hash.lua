-- Consistent hashing with several probes (Appleton and O'Reilly, "Multi-probe
-- consistent hashing", 2015): peers own points on a ring, a key is hashed to
-- several places, and the place whose next point is nearest decides. Few points
-- then spread as evenly as many do with one probe, so that a change of one peer
-- among 10,000 is a short merge. A peer that comes takes keys from the others
-- only for itself, one that goes leaves its keys to the others.
--
-- A heavy peer would need too many points. Beyond a number of them its weight
-- makes its points strong instead, one after the other: the way to a point that
-- is 16 times as strong counts as a 16th, so it gets 16 times the keys. Points
-- of one strength lie on a ring of their own. What a peer owns then depends on
-- its own key and weight alone, and grows wherever its weight does: keys move
-- only to a peer whose weight has grown, or from one whose weight has shrunk.

local bit = require("bit")
local rings = require("reloadless.structure.ring")

local arshift = bit.arshift
local band = bit.band
local bxor = bit.bxor
local byte = string.byte
local circle = rings.circle
local crc32 = ngx.crc32_short
local distance = rings.distance
local floor = math.floor
local ipairs = ipairs
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
-- Up to this weight all points are on the first ring. Each further one is so
-- many times as strong: at a weight of 100 all are on the second.
local full_weight = 6.25
local most_points = full_weight * points_per_weight
local stronger = 16
-- so that the last one is strong enough for a weight of 65535
local levels = 5
-- Points of peers that were tried which a retry passes over.
local most_passed = 20
-- times the least difference of two ways is 1
local finest = stronger ^ (levels - 1)


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


-- @return which points of a peer of that weight are on the ring of a level:
--   the first and the last; none when the last comes before the first
local function part_of(weight, level)
    local full = full_weight * stronger ^ (level - 1)
    if weight > full then
        -- what is left by the level above
        local raised = most_points * (weight / full - 1) / (stronger - 1)
        return floor(raised + 0.5) + 1, most_points
    elseif level == 1 then
        return 1, points_per_weight * weight
    end
    local raised = most_points * (weight * stronger / full - 1)
                   / (stronger - 1)
    return 1, floor(raised + 0.5)
end


-- @return a ring for the points of a level
local function new_ring(level)
    local function points(peer, weight, add)
        local first, last = part_of(weight, level)
        -- two hashes: addresses that share one do not share their points
        local a, b = hash_text(peer.key, 1), hash_text(peer.key, 2)
        for i = 1, last do
            a = mix(tobit(a + i))
            if i >= first then
                add(bxor(a, b))
            end
        end
    end
    return rings.new(points)
end


--- @return a picker without peers
function _M.new()
    return setmetatable({
        rings = {},             -- by level; those of no peer may be missing
        is_laid = true,         -- nothing has changed since they were laid
        used = {},              -- those that have points, the weakest first
        counts = {},            -- of these, as what a way of 1 counts
        only = nil,             -- the ring when just one has points
    }, mt)
end


--- Adds a peer, or gives it another weight (1 and up).
function _M:set(peer, weight)
    local rings_of = self.rings
    for level = 1, levels do
        local first, last = part_of(weight, level)
        if first <= last then
            rings_of[level] = rings_of[level] or new_ring(level)
            rings_of[level]:set(peer, weight)
        elseif rings_of[level] then
            rings_of[level]:remove(peer)
        end
    end
    self.is_laid = false
end


--- Takes a peer out.
function _M:remove(peer)
    for _, ring in pairs(self.rings) do
        ring:remove(peer)
    end
    self.is_laid = false
end


local function settle(self)
    local used, counts = {}, {}
    for level = 1, levels do
        local ring = self.rings[level]
        if ring and not ring.is_laid then
            ring:settle()
        end
        if ring and ring.size > 0 then
            used[#used + 1] = ring
            counts[#counts + 1] = stronger ^ (1 - level)
        end
    end
    self.used, self.counts, self.is_laid = used, counts, true
    self.only = #used == 1 and used[1] or nil
end


-- Where a key is looked up: from a place on, at equal steps.
local function places_of(key)
    local base = mix(tobit(crc32(key)))
    return base, mix(base)
end


-- As pick, among the peers that were not tried.
local function pick_other(self, tried, place, step)
    local best, nearest = nil, circle
    for _ = 1, probes do
        for n, ring in ipairs(self.used) do
            local size, at = ring.size, ring:find(place)
            for _ = 1, min(size, most_passed) do
                local peer, position = ring:point(at % size)
                if not tried[peer] then
                    local far = (position - place) % circle * self.counts[n]
                    if far < nearest then
                        best, nearest = peer, far
                    end
                    break
                end
                at = at + 1
            end
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


-- @return of the places of a key the nearest to a point, and its way
local function nearest_in(ring, place, step)
    -- as many as there are probes; LuaJIT would not compile a loop along
    local second = tobit(place + step)
    local third = tobit(second + step)
    local best, way = nearer(ring, place, distance(ring, place), second)
    best, way = nearer(ring, best, way, third)
    return nearer(ring, best, way, tobit(third + step))
end


-- Of the nearest so far and what one more ring has the nearer: the number of
-- its ring, the place and its way. Without a branch, as above.
local function compare(self, n, number, best, way, place, step)
    local other, other_way = nearest_in(self.used[n], place, step)
    other_way = other_way * self.counts[n]
    local is_nearer = tobit(max(min((other_way - way) * finest, 0), -1))
    return bxor(number, band(bxor(number, n), is_nearer)),
           bxor(best, band(bxor(best, other), is_nearer)),
           min(way, other_way)
end


-- @return the owner of the nearest point on two rings or more
local function pick_of_all(self, place, step)
    local used, number = self.used, 1
    local best, way = nearest_in(used[1], place, step)
    way = way * self.counts[1]
    number, best, way = compare(self, 2, number, best, way, place, step)
    if used[3] then
        number, best, way = compare(self, 3, number, best, way, place, step)
    end
    if used[4] then
        number, best, way = compare(self, 4, number, best, way, place, step)
    end
    if used[5] then
        number, best = compare(self, 5, number, best, way, place, step)
    end
    return owner(used[number], best)
end


--- @param tried set of peers that must not be picked, or nil
-- @param key the text to hash
-- @return a peer, or nil when none is found
function _M:pick(tried, key)
    if not self.is_laid then
        settle(self)
    end
    local place, step = places_of(key)
    if tried then
        return pick_other(self, tried, place, step)
    end

    local only = self.only
    if only then
        return owner(only, (nearest_in(only, place, step)))
    elseif self.used[1] then
        return pick_of_all(self, place, step)
    end
    return nil
end


return _M
