-- Draws items at random in proportion to their weights, by a Fenwick tree
-- (Fenwick 1994): all in O(log n). Pure.

local random = math.random
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @return a sampler without items
function _M.new()
    return setmetatable({
        size = 0,
        top = 1,                -- the power of two that covers all places
        sums = { 0 },           -- sums[i]: the weights of places i-(i&-i)+1..i
        items = {}, weights = {}, places = {},
    }, mt)
end


-- i & -i; the bit library would take numbers as signed 32 bits
local function lowest(i)
    local bit = 1
    while i % (bit * 2) == 0 do
        bit = bit * 2
    end
    return bit
end


local function change(self, i, weight)
    local delta = weight - (self.weights[i] or 0)
    self.weights[i] = weight
    local sums, top = self.sums, self.top
    while i <= top do
        sums[i] = sums[i] + delta
        i = i + lowest(i)
    end
end


local function grow(self)
    local sums, half = self.sums, self.top
    for i = half + 1, 2 * half do
        sums[i] = 0
    end
    sums[2 * half] = sums[half]
    self.top = 2 * half
end


--- Adds an item, or gives it another weight (above 0).
function _M:set(item, weight)
    local i = self.places[item]
    if not i then
        i = self.size + 1
        self.size = i
        if i > self.top then
            grow(self)
        end
        self.items[i], self.places[item] = item, i
    end
    change(self, i, weight)
end


--- Takes an item out; one that is not there is no error.
function _M:remove(item)
    local i = self.places[item]
    if not i then
        return
    end

    local last = self.size
    local moved, weight = self.items[last], self.weights[last]
    change(self, last, 0)
    if moved ~= item then
        change(self, i, weight)
        self.items[i], self.places[moved] = moved, i
    end
    self.items[last], self.weights[last] = nil, nil
    self.places[item] = nil
    self.size = last - 1
end


-- The place at which the running sum of weights passes the point.
local function find(self, point)
    local sums, step, i = self.sums, self.top, 0
    while step >= 1 do
        local sum = sums[i + step]
        if sum and sum <= point then
            i = i + step
            point = point - sum
        end
        step = step / 2
    end
    -- rounding of fractional weights may lead past the last one
    return i < self.size and i + 1 or self.size
end


local function sum_before(self, i)
    local sums, sum = self.sums, 0
    i = i - 1
    while i > 0 do
        sum = sum + sums[i]
        i = i - lowest(i)
    end
    return sum
end


--- @return two different items, each drawn by weight; the second is nil when
-- there is only one
function _M:draw_two()
    local size = self.size
    if size < 2 then
        return self.items[1]
    end

    local total = self.sums[self.top]
    local first = find(self, random() * total)
    local weight = self.weights[first]
    -- the second from the line of weights with the first one cut out
    local point = random() * (total - weight)
    if point >= sum_before(self, first) then
        point = point + weight
    end
    local second = find(self, point)
    if second == first then
        second = first % size + 1
    end
    return self.items[first], self.items[second]
end


return _M
