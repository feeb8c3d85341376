-- The smallest of many keys, by a tree of matches: a change plays the matches
-- on its way to the root again. Equal keys are told apart by a second one.
-- Matches have no branches and the way up has no loop, which LuaJIT compiles
-- best; who plays each other lies side by side in memory. Pure.

local bit = require("bit")
local ffi = require("ffi")

local max = math.max
local min = math.min
local rshift = bit.rshift
local setmetatable = setmetatable
local tobit = bit.tobit

local _M = {}
local mt = { __index = _M }

-- By node: the keys of the winner of its match, and the place of that item.
local matches = ffi.typeof("struct { double key, tie; int32_t place; }[?]")
-- The key of a place where nobody is: above all others, and finite, so that the
-- difference of two is a number.
local vacant = 2 ^ 60
-- Times this, any difference of keys outweighs those of the second ones.
local far = 2 ^ 100


-- The tree for so many places. The root is 1, the leaves are the last ones; 0
-- is what lies above the root.
local function new_nodes(leaves)
    local nodes = matches(2 * leaves)
    for place = 1, leaves do
        local leaf = nodes[leaves + place - 1]
        leaf.key, leaf.place = vacant, place
    end
    return nodes
end


--- @return a tournament without items
function _M.new()
    return setmetatable({
        size = 0,
        leaves = 1,             -- a power of two
        items = {},             -- by place, from 1 on
        nodes = new_nodes(1),
    }, mt)
end


-- Plays the match above a node.
-- @return the node of that match
local function play(nodes, node)
    local parent = rshift(node, 1)
    local a, b = nodes[2 * parent], nodes[2 * parent + 1]
    local lead = (b.key - a.key) * far + (b.tie - a.tie)
    -- minus 1 when b wins
    local b_wins = tobit(max(min(lead * far, 0), -1))
    local winner, match = nodes[2 * parent - b_wins], nodes[parent]
    match.key, match.tie, match.place = winner.key, winner.tie, winner.place
    return parent
end


local function play_four(nodes, node)
    return play(nodes, play(nodes, play(nodes, play(nodes, node))))
end


-- Plays the matches of a leaf, up to the root: there are 20 levels at most.
local function climb(nodes, leaf)
    local node = play_four(nodes, leaf)
    if node > 1 then
        node = play_four(nodes, node)
    end
    if node > 1 then
        node = play_four(nodes, node)
    end
    if node > 1 then
        node = play_four(nodes, node)
    end
    if node > 1 then
        play_four(nodes, node)
    end
end


local function put(self, place, key, tie)
    local nodes, leaf = self.nodes, self.leaves + place - 1
    nodes[leaf].key, nodes[leaf].tie = key, tie
    climb(nodes, leaf)
end


local function grow(self)
    local old, leaves = self.nodes, self.leaves
    local nodes = new_nodes(2 * leaves)
    ffi.copy(nodes + 2 * leaves, old + leaves, leaves * ffi.sizeof(old[0]))
    for node = 4 * leaves - 1, 3, -2 do
        play(nodes, node)
    end
    self.nodes, self.leaves = nodes, 2 * leaves
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
    put(self, place, key, tie)
end


--- Takes an item out; one that is not there is no error. O(log n).
function _M:remove(item)
    local place = item.place
    if not place then
        return
    end

    local last = self.size
    local moved = self.items[last]
    local leaf = self.nodes[self.leaves + last - 1]
    local key, tie = leaf.key, leaf.tie
    put(self, last, vacant, 0)
    self.items[last], item.place = nil, nil
    self.size = last - 1
    if moved ~= item then
        self.items[place], moved.place = moved, place
        put(self, place, key, tie)
    end
end


--- @return the item of the smallest keys, or nil
function _M:first()
    return self.items[self.nodes[1].place]
end


return _M
