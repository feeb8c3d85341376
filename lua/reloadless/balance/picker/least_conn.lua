-- The peer with the fewest requests of this worker for its weight, in O(log n);
-- among equals the one that is due first in weighted turns.
--
-- A peer that is much slower than the average would hold as many requests as
-- the others and so be what the slowest hundredth of clients sees. Its requests
-- count twice, and its turns come as much more rarely as it is slower.

local tournament = require("reloadless.structure.tournament")
local turns = require("reloadless.structure.turns")

local first = tournament.first
local max = math.max
local set = tournament.set
local setmetatable = setmetatable
local take = turns.take

local _M = {}
local mt = { __index = _M }


-- So many times the average is slow, a tick of nginx's clock added to it:
-- shorter times than that cannot be told apart.
local slow = 3
local tick = 0.001
-- Of a moving average, the part that one answer makes up.
local part = 1 / 32
-- Of its turns, the part that the slowest of peers has.
local least_share = 1 / 16
-- So many peers that were tried a retry passes over.
local most_passed = 8


--- @return a picker without peers
function _M.new()
    return setmetatable({
        race = tournament.new(),
        turns = turns.new(),
        entries = {},           -- by peer
    }, mt)
end


local function is_slow(peer)
    return peer.pace and peer.pace > slow * (peer.paces.mean + tick)
end


local function place(self, entry)
    local peer = entry.peer
    local active = is_slow(peer) and 2 * peer.active or peer.active
    set(self.race, entry, active / entry.weight, entry.due)
end


--- Adds a peer, or gives it another weight (above 0).
function _M:set(peer, weight)
    local entry = self.entries[peer]
    if not entry then
        entry = { peer = peer, phase = peer.phase }
        self.entries[peer] = entry
    elseif entry.weight == weight then
        return
    end
    self.turns:join(entry, weight)
    place(self, entry)
end


--- Takes a peer out.
function _M:remove(peer)
    local entry = self.entries[peer]
    if entry then
        self.race:remove(entry)
        self.entries[peer] = nil
    end
end


--- Tells that peer.active, the number of its requests, has changed.
function _M:update(peer)
    local entry = self.entries[peer]
    if entry then
        place(self, entry)
    end
end


--- Learns from a try on the peer.
-- @param peer its pace is its average, peer.paces.mean that of its upstream
-- @param seconds that it took
-- @param outcome only "answered" tells how slow the peer is
function _M.observe(peer, seconds, outcome)
    if outcome ~= "answered" then
        return
    end
    local paces = peer.paces
    local mean = paces.mean or seconds
    paces.mean = mean + (seconds - mean) * part
    -- one slow answer alone shows nothing
    peer.pace = (peer.pace or mean) * (1 - part) + seconds * part
end


local function pick(self)
    local entry = first(self.race)
    if not entry then
        return nil
    end
    local peer = entry.peer
    take(self.turns, entry, is_slow(peer)
                            and max(peer.paces.mean / peer.pace, least_share)
                            or 1)
    return peer
end


-- Those that were tried and come first stand aside meanwhile.
local function pick_other(self, tried)
    local race, passed = self.race, {}
    local entry = first(race)
    while entry and tried[entry.peer] and #passed < most_passed do
        passed[#passed + 1] = entry
        race:remove(entry)
        entry = first(race)
    end
    local picked = entry and not tried[entry.peer] and pick(self) or nil
    for i = 1, #passed do
        place(self, passed[i])
    end
    return picked
end


--- Picks a peer; update is to be called for it.
-- @param tried set of peers that must not be picked, or nil
-- @return a peer, or nil when none is found
function _M:pick(tried)
    if tried then
        return pick_other(self, tried)
    end
    return pick(self)
end


return _M
