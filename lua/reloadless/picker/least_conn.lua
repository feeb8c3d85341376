-- The peer with the fewest requests of this worker for its weight, in O(log n).
-- Among equals one that is much slower than the average waits, unless it is
-- idle; then who is due first in weighted turns.

local tournament = require("reloadless.tournament")
local turns = require("reloadless.turns")

local pairs = pairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


-- So many times the average is slow.
local slow = 3
-- Of a moving average, the part that one answer makes up.
local part = 1 / 32
-- Beyond all turns.
local last = 2 ^ 40


--- @return a picker without peers
function _M.new()
    return setmetatable({
        race = tournament.new(),
        turns = turns.new(),
        entries = {},           -- by peer
    }, mt)
end


local function place(self, entry)
    local peer, tie = entry.peer, entry.due
    if peer.active > 0 and peer.pace and peer.pace > slow * peer.paces.mean then
        tie = tie + last
    end
    self.race:set(entry, peer.active / entry.weight, tie)
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
    paces.mean = paces.mean + (seconds - paces.mean) * part
    peer.pace = (peer.pace or seconds) * (1 - part) + seconds * part
end


local function pick(self)
    local entry = self.race:first()
    if not entry then
        return nil
    end
    self.turns:take(entry)
    return entry.peer
end


--- Picks a peer; update is to be called for it.
-- @param tried set of peers that must not be picked, or nil
-- @return a peer, or nil when none is left
function _M:pick(tried)
    if not tried then
        return pick(self)
    end

    for peer in pairs(tried) do
        if self.entries[peer] then
            self.race:remove(self.entries[peer])
        end
    end
    local picked = pick(self)
    for peer in pairs(tried) do
        self:update(peer)
    end
    return picked
end


return _M
