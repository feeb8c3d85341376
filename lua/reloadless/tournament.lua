-- The smallest of many keys, by a tree of matches: a change plays the matches
-- on its way to the root again, always the same number, in a loop that LuaJIT
-- compiles. Equal keys are told apart by a second one. Pure.

local floor = math.floor
local huge = math.huge
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @return a tournament without items
function _M.new()
    return setmetatable({
        size = 0,
        leaves = 1,             -- a power of two
        depth = 0,              -- its logarithm
        items = {}, places = {},
        keys = { huge }, ties = { huge },
        winners = { 1 },        -- by node; the leaves are the last ones
    }, mt)
end


local function play(self, place)
    local keys, ties, winners = self.keys, self.ties, self.winners
    local node = self.leaves + place - 1
    for _ = 1, self.depth do
        node = floor(node / 2)
        local best, other = winners[2 * node], winners[2 * node + 1]
        local key, rival = keys[best], keys[other]
        if rival < key or (rival == key and ties[other] < ties[best]) then
            best = other
        end
        winners[node] = best
    end
end


local function grow(self)
    local keys, ties, winners = self.keys, self.ties, self.winners
    local leaves = self.leaves * 2
    self.leaves, self.depth = leaves, self.depth + 1
    for place = 1, leaves do
        keys[place] = keys[place] or huge
        ties[place] = ties[place] or huge
        winners[leaves + place - 1] = place
    end
    for place = 1, leaves, 2 do
        play(self, place)
    end
end


--- Puts an item in, or gives it other keys. O(log n).
function _M:set(item, key, tie)
    local place = self.places[item]
    if not place then
        place = self.size + 1
        self.size = place
        if place > self.leaves then
            grow(self)
        end
        self.items[place], self.places[item] = item, place
    end
    self.keys[place], self.ties[place] = key, tie
    play(self, place)
end


--- Takes an item out; one that is not there is no error. O(log n).
function _M:remove(item)
    local place = self.places[item]
    if not place then
        return
    end

    local last = self.size
    local moved = self.items[last]
    local key, tie = self.keys[last], self.ties[last]
    self.keys[last], self.ties[last] = huge, huge
    play(self, last)
    self.items[last], self.places[item] = nil, nil
    self.size = last - 1
    if moved ~= item then
        self.items[place], self.places[moved] = moved, place
        self.keys[place], self.ties[place] = key, tie
        play(self, place)
    end
end


--- @return the item of the smallest keys, or nil
function _M:first()
    return self.items[self.winners[1]]
end


return _M
