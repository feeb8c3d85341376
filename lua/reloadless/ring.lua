-- A circle of 2^32 positions on which peers own points, in order: round robin
-- walks along it, consistent hashing looks places up. A change of one peer
-- copies the stretches between its points as a whole. Pure.

local bit = require("bit")
local ffi = require("ffi")

local band = bit.band
local ceil = math.ceil
local floor = math.floor
local log = math.log
local max = math.max
local min = math.min
local pairs = pairs
local rshift = bit.rshift
local setmetatable = setmetatable
local sort = table.sort

local _M = { circle = 2 ^ 32 }
local mt = { __index = _M }

local circle = _M.circle
-- A point and its owner's number in one double: 32 and 21 bits.
local shift = 2 ^ 21
-- both circle and number, so that differences wrap
local whole = circle * shift
-- Points repeated behind the last one, so that looking on needs no wrap.
local spare = 3
local doubles = ffi.typeof("double[?]")
local integers = ffi.typeof("int32_t[?]")
-- from where a radix sort is faster than table.sort
local many = 1000


--- @param points function(peer, weight, add) that calls add(position) for each
--   point of a peer: whole numbers from 0 below 2^32
-- @param unit_of function(weights) that returns by what all weights are divided
-- @return an empty ring
function _M.new(points, unit_of)
    return setmetatable({
        points_of = points,
        unit_of = unit_of,
        weights = {},           -- by peer
        count = 0,              -- of peers
        changed = {},           -- peers to lay anew when the ring is next used
        is_laid = true,         -- nothing is in changed
        unit = 1,
        laid = {},              -- the divided weights on the ring
        numbers = {},           -- of peers on the ring
        owners = {},            -- peers by number
        last = 0,               -- the greatest number given
        free = {},              -- numbers not in use
        points = doubles(spare),    -- sorted: position * shift + number
        unused = doubles(spare),    -- the array for the next ones
        size = 0,
        slices = 1,             -- equal parts of the circle, about one a point
        first = integers(2),    -- the first point in each
    }, mt)
end


--- Adds a peer, or gives it another weight (above 0).
function _M:set(peer, weight)
    local was = self.weights[peer]
    if was ~= weight then
        self.count = self.count + (was and 0 or 1)
        self.weights[peer] = weight
        self.changed[peer] = true
        self.is_laid = false
    end
end


--- Takes a peer out.
function _M:remove(peer)
    if self.weights[peer] then
        self.count = self.count - 1
        self.weights[peer] = nil
        self.changed[peer] = true
        self.is_laid = false
    end
end


-- Sorts by position, 11 bits at a time.
local function radix_sort(list)
    local size = #list
    local from, to = doubles(size), doubles(size)
    for i = 1, size do
        from[i - 1] = list[i]
    end

    for low = 0, 22, 11 do
        local starts = integers(2049)
        for i = 0, size - 1 do
            local digit = band(rshift(floor(from[i] / shift), low), 2047)
            starts[digit + 1] = starts[digit + 1] + 1
        end
        for digit = 1, 2048 do
            starts[digit] = starts[digit] + starts[digit - 1]
        end
        for i = 0, size - 1 do
            local digit = band(rshift(floor(from[i] / shift), low), 2047)
            to[starts[digit]] = from[i]
            starts[digit] = starts[digit] + 1
        end
        from, to = to, from
    end

    for i = 1, size do
        list[i] = from[i - 1]
    end
end


local function sort_points(list)
    if #list < many then
        sort(list)
    else
        radix_sort(list)
    end
end


-- The first place whose point is not below the given value.
local function search(points, size, value)
    local low, high = 0, size
    while low < high do
        local middle = floor((low + high) / 2)
        if points[middle] < value then
            low = middle + 1
        else
            high = middle
        end
    end
    return low
end


-- @return an array with room for so many points: that of the points before the
-- last, or a new one with some to spare
local function room(self, length)
    if ffi.sizeof(self.unused) >= (length + spare) * 8 then
        return self.unused
    end
    return doubles(ceil(length * 1.25) + spare)
end


-- Takes out and puts in points (both sorted); what lies between is copied as a
-- whole.
local function merge(self, gone, new)
    local old, size = self.points, self.size
    local length = size - #gone + #new
    local points = room(self, length)
    local from, to = 0, 0
    local function copy(upto)
        ffi.copy(points + to, old + from, (upto - from) * 8)
        to = to + upto - from
        from = upto
    end

    local g, n = 1, 1
    while gone[g] or new[n] do
        local removes = not new[n] or (gone[g] and gone[g] < new[n])
        if from < size then
            copy(search(old, size, removes and gone[g] or new[n]))
        end
        if removes then
            from = from + 1
            g = g + 1
        else
            points[to] = new[n]
            to = to + 1
            n = n + 1
        end
    end
    copy(size)
    for i = 0, length > 0 and spare - 1 or -1 do
        points[length + i] = points[i % length]
    end
    self.points, self.unused, self.size = points, old, length
end


-- Moves the first point of each slice by as many as went and came before it.
local function shift_index(self, gone, new)
    local first, slices = self.first, self.slices
    local part = slices / circle / shift
    local slice, moved = 0, 0
    local function move(upto)
        for between = slice + 1, moved ~= 0 and upto or 0 do
            first[between] = first[between] + moved
        end
        slice = upto
    end

    local g, n = 1, 1
    while gone[g] or new[n] do
        if not new[n] or (gone[g] and gone[g] < new[n]) then
            move(floor(gone[g] * part))
            moved = moved - 1
            g = g + 1
        else
            move(floor(new[n] * part))
            moved = moved + 1
            n = n + 1
        end
    end
    move(slices)
end


-- So that a look-up scans a point or two instead of searching them all.
local function index(self)
    local points, size = self.points, self.size
    local slices = 2 ^ max(0, ceil(log(max(size, 1)) / log(2)))
    local first = integers(slices + 1)
    local part = slices / circle / shift
    local slice = 0
    for i = 0, size - 1 do
        local last = floor(points[i] * part)
        for between = slice, last do
            first[between] = i
        end
        slice = max(slice, last + 1)
    end
    for between = slice, slices do
        first[between] = size
    end
    self.first, self.slices = first, slices
end


local function take_number(self)
    local free = self.free
    local count = #free
    if count > 0 then
        local number = free[count]
        free[count] = nil
        return number
    end
    self.last = self.last + 1
    return self.last
end


local function lay(self)
    local unit = self.unit_of(self.weights)
    if unit ~= self.unit then
        self.unit = unit
        for peer in pairs(self.weights) do
            self.changed[peer] = true
        end
    end

    local gone, new, unused = {}, {}, {}
    local list, number
    local function add(position)
        list[#list + 1] = position * shift + number
    end
    for peer in pairs(self.changed) do
        number = self.numbers[peer]
        if number then
            list = gone
            self.points_of(peer, self.laid[peer], add)
            self.numbers[peer], self.owners[number] = nil, nil
            unused[#unused + 1] = number
        end

        local weight = self.weights[peer]
        self.laid[peer] = weight and weight / unit
        if weight then
            list, number = new, take_number(self)
            self.numbers[peer], self.owners[number] = number, peer
            self.points_of(peer, weight / unit, add)
        end
    end
    -- not before: a number must not have old and new points in one merge
    for i = 1, #unused do
        self.free[#self.free + 1] = unused[i]
    end
    sort_points(gone)
    sort_points(new)
    merge(self, gone, new)
    if self.size <= self.slices and self.size * 4 >= self.slices then
        shift_index(self, gone, new)
    else
        index(self)
    end
end


--- Lays the changes since the last call: to be called before the ring is used.
-- @return whether there were any
function _M:settle()
    if self.is_laid then
        return false
    end
    lay(self)
    self.changed, self.is_laid = {}, true
    return true
end


--- @param position on the circle
-- @return the place of the first point from there on; size when there is none
function _M:find(position)
    local points, size = self.points, self.size
    local at = self.first[floor(position * (self.slices / circle))]
    while at < size and points[at] < position * shift do
        at = at + 1
    end
    return at
end


--- Looks for the first point from a position on, without a loop and with one
-- branch that is rarely taken, which LuaJIT compiles best. The ring has points.
-- @param position on the circle
-- @return a number that grows with the distance of that point; owner tells
--   whose it is
function _M:next(position)
    local points = self.points
    local at = self.first[floor(position * (self.slices / circle))]
    local from = position * shift
    if points[at + 2] < from then
        at = self:find(position)
    end
    return min((points[at] - from) % whole, (points[at + 1] - from) % whole,
               (points[at + 2] - from) % whole)
end


--- @param distance as next returns it
-- @return the peer
function _M:owner(distance)
    return self.owners[distance % shift]
end


--- @param at a place from 0 below size
-- @return the peer that owns its point, and the point's position
function _M:point(at)
    local point = self.points[at]
    return self.owners[point % shift], floor(point / shift)
end


return _M
