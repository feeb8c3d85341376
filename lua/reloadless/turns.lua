-- When each peer is due: in each turn of virtual time a peer of weight w is due
-- w times, evenly spaced and shifted by a random phase of its own. Pure.

local floor = math.floor
local random = math.random
local setmetatable = setmetatable

-- of a step
local grace = 1e-6

local _M = {}
local mt = { __index = _M }


--- @return a clock that has begun at a random time
function _M.new()
    return setmetatable({ time = random() }, mt)
end


-- The first of its places turn + (step + phase) / weight after the time now.
local function next_place(self, entry, share)
    local weight, phase = entry.weight * share, entry.phase
    local turn = floor(self.time)
    -- rounding must not give a place twice
    local step = floor((self.time - turn) * weight - phase + grace) + 1
    if step >= weight and weight >= 1 then
        turn, step = turn + 1, 0
    end
    return turn + (step + phase) / weight
end


--- Lets an entry take part, or gives it another weight.
-- @param entry a table; its fields weight (above 0), phase and due belong to
--   this module
function _M:join(entry, weight)
    entry.weight = weight
    entry.phase = entry.phase or random()
    entry.due = next_place(self, entry, 1)
end


--- The entry has its turn: time moves on to it, and due to its next place.
-- Places that it has missed are gone.
-- @param share of its weight that counts, from above 0 to 1
function _M:take(entry, share)
    if entry.due > self.time then
        self.time = entry.due
    end
    entry.due = next_place(self, entry, share)
end


return _M
