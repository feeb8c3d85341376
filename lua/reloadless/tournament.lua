-- The smallest of many keys, by a tree of matches: a change plays the matches
-- on its way to the root again. Equal keys are told apart by a second one.
-- Matches have no branches and the way up has no loop, which LuaJIT compiles
-- best. Pure.

local bit = require("bit")

local band = bit.band
local bxor = bit.bxor
local max = math.max
local min = math.min
local rshift = bit.rshift
local setmetatable = setmetatable
local tobit = bit.tobit

local _M = {}
local mt = { __index = _M }

-- The key of a place where nobody is: above all others, and finite, so that the
-- difference of two is a number.
local vacant = 2 ^ 60
-- Times this, any difference of keys outweighs those of the second ones.
local far = 2 ^ 100


--- @return a tournament without items
function _M.new()
    return setmetatable({
        size = 0,
        leaves = 1,             -- a power of two
        items = {},             -- by place, from 1 on
        keys = { vacant }, ties = { 0 },
        -- The winning place by node. The root is 1, the leaves are the last
        -- ones; 0 is what lies above the root.
        winners = { [0] = 1, 1 },
    }, mt)
end


-- Plays the match above a node.
-- @return the node of that match
local function play(self, node)
    local keys, ties, winners = self.keys, self.ties, self.winners
    local parent = rshift(node, 1)
    local a, b = winners[2 * parent], winners[2 * parent + 1]
    local lead = (keys[b] - keys[a]) * far + (ties[b] - ties[a])
    -- all bits are set when b wins
    local b_wins = tobit(max(min(lead * far, 0), -1))
    winners[parent] = bxor(a, band(bxor(a, b), b_wins))
    return parent
end


local function play_four(self, node)
    return play(self, play(self, play(self, play(self, node))))
end


-- Plays the matches of a place, up to the root: there are 20 levels at most.
local function climb(self, place)
    local node = play_four(self, self.leaves + place - 1)
    if node > 1 then
        node = play_four(self, node)
    end
    if node > 1 then
        node = play_four(self, node)
    end
    if node > 1 then
        node = play_four(self, node)
    end
    if node > 1 then
        play_four(self, node)
    end
end


local function grow(self)
    local keys, ties, winners = self.keys, self.ties, self.winners
    local leaves = self.leaves * 2
    self.leaves = leaves
    for place = 1, leaves do
        keys[place] = keys[place] or vacant
        ties[place] = ties[place] or 0
        winners[leaves + place - 1] = place
    end
    for node = 2 * leaves - 1, 3, -2 do
        winners[rshift(node, 1)] = winners[node]
        play(self, node)
    end
end


--- Puts an item in, or gives it other keys. O(log n).
-- @param item a table; its field place belongs to this module
-- @param key, tie numbers; key is below 2^60
function _M:set(item, key, tie)
    local place = item.place
    if not place then
        place = self.size + 1
        self.size = place
        if place > self.leaves then
            grow(self)
        end
        self.items[place], item.place = item, place
    end
    self.keys[place], self.ties[place] = key, tie
    climb(self, place)
end


--- Takes an item out; one that is not there is no error. O(log n).
function _M:remove(item)
    local place = item.place
    if not place then
        return
    end

    local last = self.size
    local moved = self.items[last]
    local key, tie = self.keys[last], self.ties[last]
    self.keys[last], self.ties[last] = vacant, 0
    climb(self, last)
    self.items[last], item.place = nil, nil
    self.size = last - 1
    if moved ~= item then
        self.items[place], moved.place = moved, place
        self.keys[place], self.ties[place] = key, tie
        climb(self, place)
    end
end


--- @return the item of the smallest keys, or nil
function _M:first()
    return self.items[self.winners[1]]
end


return _M
