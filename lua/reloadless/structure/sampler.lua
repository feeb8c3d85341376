-- Draws items at random in proportion to their weights, by the alias method
-- (Vose 1991): a draw looks at one place, whatever the number of items. Changes
-- are laid when the next draw comes. Pure.

local floor = math.floor
local random = math.random
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @return a sampler without items
function _M.new()
    return setmetatable({
        size = 0,
        items = {}, weights = {}, places = {},
        changed = false,
        -- of a draw that falls on a place: the share that stays there, and the
        -- place to which the rest goes
        stay = {}, alias = {},
    }, mt)
end


--- Adds an item, or gives it another weight (above 0).
function _M:set(item, weight)
    local i = self.places[item]
    if not i then
        i = self.size + 1
        self.size = i
        self.items[i], self.places[item] = item, i
    end
    self.changed = self.changed or self.weights[i] ~= weight
    self.weights[i] = weight
end


--- Takes an item out; one that is not there is no error.
function _M:remove(item)
    local i = self.places[item]
    if not i then
        return
    end

    local last = self.size
    local moved = self.items[last]
    self.items[i], self.weights[i] = moved, self.weights[last]
    self.places[moved] = i
    self.items[last], self.weights[last] = nil, nil
    self.places[item] = nil
    self.size = last - 1
    self.changed = true
end


local function lay(self)
    local size, weights = self.size, self.weights
    local stay, alias = self.stay, self.alias
    local sum = 0
    for i = 1, size do
        sum = sum + weights[i]
    end

    local low, high = {}, {}
    for i = 1, size do
        stay[i], alias[i] = weights[i] * size / sum, i
        if stay[i] < 1 then
            low[#low + 1] = i
        else
            high[#high + 1] = i
        end
    end
    -- fills each place that has too little from one that has too much
    local l, h = #low, #high
    while l > 0 and h > 0 do
        local poor, rich = low[l], high[h]
        l = l - 1
        alias[poor] = rich
        stay[rich] = stay[rich] - (1 - stay[poor])
        if stay[rich] < 1 then
            l, h = l + 1, h - 1
            low[l] = rich
        end
    end
    self.changed = false
end


local function draw(self)
    local point = random() * self.size
    local place = floor(point)
    if point - place < self.stay[place + 1] then
        return place + 1
    end
    return self.alias[place + 1]
end


--- Draws by weight. There are two items or more.
-- @return the places of two different items in items and weights
function _M:draw_two()
    local size = self.size
    if self.changed then
        lay(self)
    end

    local first, second = draw(self), draw(self)
    if first == second then
        second = draw(self)
    end
    if first == second then
        -- among equals this is rare, and else a neighbour is as good
        second = first % size + 1
    end
    return first, second
end


return _M
