-- Smooth weighted round robin at a cost that does not depend on the number of
-- peers: a walk along a ring on which a peer of weight w has w points, evenly
-- spaced and shifted by a random phase of its own.
--
-- So a full turn gives exact shares, peers of equal weight follow each other in
-- an order that differs from worker to worker, and a change of the peer list
-- moves nobody else's place. nginx's own smooth round robin, which walks all
-- peers on each pick, has the same shares.
--
-- Among very many peers a plain walk would meet a peer again only when its
-- pooled connection is the oldest of thousands: nginx searches its pool from
-- the youngest on, or has closed it. So the walk then goes over one stretch of
-- the ring several times before it moves on; shares are the same in the end.

local rings = require("reloadless.structure.ring")

local ceil = math.ceil
local circle = rings.circle
local floor = math.floor
local log = math.log
local max = math.max
local min = math.min
local pairs = pairs
local peer_at = rings.peer_at
local random = math.random
local setmetatable = setmetatable
local tobit = require("bit").tobit

local _M = {}
local mt = { __index = _M }

-- Weights of a greater sum are divided by their greatest common divisor, and
-- then halved until they have no more points than this, or so many for each
-- peer.
local most_points = 2 ^ 17
local points_per_peer = 64
-- More peers than these are many; then a stretch has so many points, and is
-- walked so many times.
local many_peers = 500
local stretch_points = 128
local stretch_rounds = 16
-- Points passed over in a row, before the next is taken all the same.
local most_passed = 20


local function points(peer, weight, add)
    local count = max(1, floor(weight + 0.5))
    for step = 0, count - 1 do
        add(floor((step + peer.phase) / count * circle) + rings.start)
    end
end


local function common_divisor(a, b)
    while b > 0 do
        a, b = b, a % b
    end
    return a
end


local function unit_of(weights, unit)
    local sum, count = 0, 0
    for _, weight in pairs(weights) do
        sum, count = sum + weight, count + 1
    end
    local most = max(most_points, points_per_peer * count)
    if sum <= most then
        return 1
    end

    local divisor = 0
    for _, weight in pairs(weights) do
        divisor = common_divisor(weight, divisor)
        if divisor == 1 then
            break
        end
    end
    if divisor % unit == 0 and sum / unit <= most then
        -- exact as it is: to change the unit is to lay all points anew
        return unit
    end
    return divisor * 2 ^ max(0, ceil(log(sum / divisor / most) / log(2)))
end


--- @return a picker without peers
function _M.new()
    return setmetatable({
        ring = rings.new(points, unit_of),
        place = 0,              -- of the next point
        -- behind the last point, when points last came and went
        position = tobit(random() * circle),
        -- where the stretch begins, as a position and as a place, and the
        -- place where it ends
        start = 0,
        first = 0,
        stop = 0,
        rounds = 0,             -- walks over it that are to come
        retried = 0,            -- the place of the last peer of a retry
        shares = {},            -- by peer in slow start: how many of its
        slow = 0,               -- points count; and the number of such peers
    }, mt)
end


local function set_share(self, peer, share)
    self.slow = self.slow + (share and 1 or 0) - (self.shares[peer] and 1 or 0)
    self.shares[peer] = share
end


--- Adds a peer, or gives it another weight (above 0). Shares are exact while
-- the sum of weights, their common divisor taken out, is not above 131072 or 64
-- for each peer; beyond, each is rounded to a whole number of points.
function _M:set(peer, weight)
    local whole = ceil(weight)
    set_share(self, peer, whole ~= weight and weight / whole or nil)
    self.ring:set(peer, whole)
end


--- Takes a peer out.
function _M:remove(peer)
    set_share(self, peer, nil)
    self.ring:remove(peer)
end


-- The place where the walk goes on at the end of a stretch, or of the ring.
local function turn(self, place)
    local ring = self.ring
    if self.rounds > 0 then
        self.rounds = self.rounds - 1
        return self.first
    end

    place = place < ring.size and place or 0
    if ring.count > many_peers then
        local _, position = ring:point(place)
        self.start, self.first = position, place
        self.rounds = stretch_rounds - 1
        self.stop = min(place + stretch_points, ring.size)
    else
        self.stop = ring.size
    end
    return place
end


-- The peer at the next point.
local function step(self)
    local ring = self.ring
    local place = self.place
    if place >= self.stop then
        if ring.size == 0 then
            return nil
        end
        place = turn(self, place)
    end
    self.place = place + 1
    return peer_at(ring, place)
end


-- Lays the points that have come and gone, and finds the way again.
local function settle(self)
    local ring, place = self.ring, self.place
    if place > 0 then
        local _, position = ring:point(place - 1)
        self.position = tobit(position + 1)
    end
    ring:settle()
    self.place = ring:find(self.position)
    self.first = ring:find(self.start)
    if ring.count <= many_peers then
        self.stop, self.rounds = ring.size, 0
    elseif self.stop > 0 and self.start <= self.position then
        self.stop = min(self.first + stretch_points, ring.size)
    else
        self.stop = self.place
    end
end


-- The peer of the next point that counts: in slow start not all do.
local function step_slowly(self)
    local peer
    for _ = 1, most_passed do
        peer = step(self)
        local share = peer and self.shares[peer]
        if not share or random() < share then
            return peer
        end
    end
    return peer
end


-- A peer that was not tried. Retries go round on their own: they neither use up
-- turns, or a bad peer of two would get each request first, nor all go to the
-- neighbour of a bad peer.
local function step_over(self, tried)
    local ring = self.ring
    for _ = 1, min(ring.size, most_passed) do
        self.retried = (self.retried + 1) % ring.size
        local peer = peer_at(ring, self.retried)
        if not tried[peer] then
            return peer
        end
    end
end


--- @param tried set of peers that must not be picked, or nil
-- @return a peer, or nil when none is found
function _M:pick(tried)
    if not self.ring.is_laid then
        settle(self)
    end
    if tried then
        return step_over(self, tried)
    elseif self.slow > 0 then
        return step_slowly(self)
    end
    return step(self)
end


return _M
