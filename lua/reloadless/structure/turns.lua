-- When each peer is due: in each turn of virtual time a peer of weight w is due
-- w times, evenly spaced and shifted by a random phase of its own. Pure.

local floor = math.floor
local max = math.max
local random = math.random
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @return a clock that has begun at a random time
function _M.new()
    return setmetatable({ time = random() }, mt)
end


--- Lets an entry take part, or gives it another weight: what is left of its
-- wait then passes as much faster or slower.
-- @param entry a table; its fields weight (above 0), phase and due belong to
--   this module
function _M:join(entry, weight)
    local left = entry.due and max(0, entry.due - self.time) * entry.weight
    entry.phase = entry.phase or random()
    entry.due = self.time + (left or entry.phase) / weight
    entry.weight = weight
end


--- The entry has its turn: time moves on to it, and due to its next place.
-- Places that it has missed are gone.
-- @param share of its weight that counts, from above 0 to 1
function _M:take(entry, share)
    local due, weight = entry.due, entry.weight * share
    local missed = 0
    if due > self.time then
        self.time = due
    else
        missed = floor((self.time - due) * weight)
    end
    entry.due = due + (missed + 1) / weight
end


return _M
