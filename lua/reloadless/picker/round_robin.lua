-- Smooth weighted round robin in O(log n): earliest deadline first.
--
-- In each turn of virtual time a peer of weight w is due w times, evenly
-- spaced and shifted by a random phase of its own. So a full turn gives exact
-- shares, peers of equal weight follow each other in an order that differs
-- from worker to worker, and a change of the peer list moves nobody else's
-- place. nginx's own smooth round robin, which walks all peers on each pick,
-- has the same shares.

local heap = require("reloadless.heap")

local ceil = math.ceil
local floor = math.floor
local random = math.random
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @return a picker without peers
function _M.new()
    local self = {
        heap = heap.new(),
        time = random(),    -- virtual, in turns
        -- by peer: its weight, its phase in 0..1, and when it is due next:
        -- time due = turn + (step + phase) / weight
        weight = {}, phase = {}, turn = {}, step = {},
    }
    return setmetatable(self, mt)
end


local function due(self, peer)
    return self.turn[peer]
           + (self.step[peer] + self.phase[peer]) / self.weight[peer]
end


--- Adds a peer, or gives it another weight (1 and up).
function _M:set(peer, weight)
    if self.weight[peer] == weight then
        return
    end

    self.weight[peer] = weight
    self.phase[peer] = self.phase[peer] or random()

    -- the first of its places that is not over
    local turn = floor(self.time)
    local step = ceil((self.time - turn) * weight - self.phase[peer])
    if step >= weight then
        turn, step = turn + 1, 0
    end
    self.turn[peer], self.step[peer] = turn, step
    self.heap:set(peer, due(self, peer))
end


--- Takes a peer out.
function _M:remove(peer)
    self.heap:remove(peer)
    self.weight[peer], self.phase[peer] = nil, nil
    self.turn[peer], self.step[peer] = nil, nil
end


--- @param tried set of peers that must not be picked, or nil
-- @return a peer, or nil when none is left
function _M:pick(tried)
    local queue = self.heap
    local peer, time = queue:top()
    local aside
    while peer and tried and tried[peer] do
        -- keeps its turn: it goes back to where it was
        queue:remove(peer)
        aside = { peer = peer, time = time, next = aside }
        peer, time = queue:top()
    end
    while aside do
        queue:set(aside.peer, aside.time)
        aside = aside.next
    end
    if not peer then
        return nil
    end

    if time > self.time then
        self.time = time
    end
    local step = self.step[peer] + 1
    if step >= self.weight[peer] then
        self.turn[peer] = self.turn[peer] + 1
        step = 0
    end
    self.step[peer] = step
    queue:set(peer, due(self, peer))
    return peer
end


return _M
