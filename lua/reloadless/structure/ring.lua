-- A circle of 2^32 positions on which peers own points, in order: round robin
-- walks along it, consistent hashing looks places up. A change of one peer
-- copies the stretches between its points as a whole. Pure.
--
-- A position is a signed 32-bit integer, and the circle begins at the least of
-- them: the operations of bit then need no division to go round.

local bit = require("bit")
local ffi = require("ffi")

local arshift = bit.arshift
local band = bit.band
local bxor = bit.bxor
local ceil = math.ceil
local error = error
local floor = math.floor
local log = math.log
local max = math.max
local min = math.min
local pairs = pairs
local rshift = bit.rshift
local setmetatable = setmetatable
local sort = table.sort
local sort_points = require("reloadless.structure.points").sort
local tobit = bit.tobit

local _M = { circle = 2 ^ 32, start = -2 ^ 31 }
local mt = { __index = _M }

local start = _M.start
-- While points are sorted and merged, a point is one double: how far it is from
-- the start, and its owner's number, in 32 and 21 bits.
local shift = 2 ^ 21
-- Points repeated behind the last one, so that looking on needs no wrap.
local spare = 4
local integers = ffi.typeof("int32_t[?]")


-- Arrays for so many points: their positions, and the numbers of their owners.
local function new_arrays(length)
    return {
        length = length,
        positions = integers(length + spare),
        numbers = integers(length + spare),
    }
end


-- Takes all points from the ring.
local function clear(self)
    self.laid = {}              -- the divided weights on the ring
    self.owner_numbers = {}     -- of peers on the ring
    self.owners = {}            -- peers by number
    self.last = 0               -- the greatest number given
    self.free = {}              -- numbers not in use
    self.size = 0               -- of points
    -- The first point in each of 2^n equal parts of the circle, about one a
    -- point; a position's part is its 32 bits without the low ones.
    self.first = integers(3)
    self.low_bits = 31
end


--- @param points function(peer, weight, add) that calls add(position) for each
--   point of a peer
-- @param unit_of function(weights, unit) that returns by what all weights are
--   divided; unit is by what they were; or nil
-- @return an empty ring
function _M.new(points, unit_of)
    local arrays = new_arrays(0)
    local self = {
        points_of = points,
        unit_of = unit_of,
        weights = {},           -- by peer
        count = 0,              -- of peers
        changed = {},           -- peers to lay anew when the ring is next used
        is_laid = true,         -- nothing is in changed
        unit = 1,
        -- the points, in order
        positions = arrays.positions,
        numbers = arrays.numbers,
        arrays = arrays,        -- both
        unused = new_arrays(0), -- those for the next points
    }
    clear(self)
    return setmetatable(self, mt)
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


-- The first place whose point is not below the given one.
local function search(self, point)
    local positions, numbers, size = self.positions, self.numbers, self.size
    local at = self.first[floor(point / shift / 2 ^ self.low_bits)]
    while at < size
          and (positions[at] - start) * shift + numbers[at] < point
    do
        at = at + 1
    end
    return at
end


-- @return arrays with room for so many points: those of the points before the
-- last, or new ones with some to spare
local function room(self, length)
    if self.unused.length >= length then
        return self.unused
    end
    return new_arrays(ceil(length * 1.25))
end


-- What would write beyond an array is an error, not a crash.
local function check(holds)
    if not holds then
        error("a ring has lost count of its points")
    end
end


local function copy_points(to, at, from, first, count)
    check(count >= 0 and at + count <= to.length + spare
          and first + count <= from.length + spare)
    ffi.copy(to.positions + at, from.positions + first, count * 4)
    ffi.copy(to.numbers + at, from.numbers + first, count * 4)
end


-- Takes out and puts in points (both sorted); what lies between is copied as a
-- whole.
local function merge(self, gone, new)
    local old, size = self.arrays, self.size
    local length = size - #gone + #new
    local arrays = room(self, length)
    local from, to = 0, 0
    local function copy(upto)
        copy_points(arrays, to, old, from, upto - from)
        to = to + upto - from
        from = upto
    end

    local g, n = 1, 1
    while gone[g] or new[n] do
        local removes = not new[n] or (gone[g] and gone[g] < new[n])
        if from < size then
            -- not back to a point that is gone when a peer has two of the same
            copy(max(from, search(self, removes and gone[g] or new[n])))
        end
        if removes then
            from = from + 1
            g = g + 1
        else
            check(to < length)
            arrays.positions[to] = floor(new[n] / shift) + start
            arrays.numbers[to] = new[n] % shift
            to = to + 1
            n = n + 1
        end
    end
    copy(size)
    for i = 0, length > 0 and spare - 1 or -1 do
        copy_points(arrays, length + i, arrays, i % length, 1)
    end
    self.arrays, self.unused, self.size = arrays, old, length
    self.positions, self.numbers = arrays.positions, arrays.numbers
end


-- Moves the first point of each part by as many as went and came before it.
local function shift_index(self, gone, new)
    local first = self.first
    local part = 2 ^ -self.low_bits / shift
    local last, moved = 0, 0
    local function move(upto)
        for between = last + 1, moved ~= 0 and upto or 0 do
            first[between] = first[between] + moved
        end
        last = upto
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
    move(2 ^ (32 - self.low_bits))
end


-- From here on a call of a function of the language stands in brackets where it
-- would end a function: LuaJIT compiles no trace that begins in a function with
-- such a tail call.


-- The part of the circle in which a position lies.
local function part_of(position, low_bits)
    return (rshift(bxor(position, start), low_bits))
end


-- So that a look-up scans a point or two instead of searching them all.
local function index(self)
    local positions, size = self.positions, self.size
    local bits = max(1, ceil(log(max(size, 1)) / log(2)))
    local low_bits = 32 - bits
    local first = integers(2 ^ bits + 1)
    -- one more than the place, so that 0 is none
    for i = size - 1, 0, -1 do
        first[part_of(positions[i], low_bits)] = i + 1
    end
    local following = size
    for part = 2 ^ bits, 0, -1 do
        following = first[part] > 0 and first[part] - 1 or following
        first[part] = following
    end
    self.first, self.low_bits = first, low_bits
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
    local unit = self.unit_of and self.unit_of(self.weights, self.unit)
                 or 1
    if unit ~= self.unit then
        clear(self)
        self.unit, self.changed = unit, self.weights
    end

    local leaving, staying, numbers = {}, {}, {}
    for peer in pairs(self.changed) do
        leaving[#leaving + 1] = self.owner_numbers[peer]
        if self.weights[peer] then
            staying[#staying + 1] = peer
            numbers[#numbers + 1] = take_number(self)
        end
    end
    sort(leaving)
    sort(numbers)

    local gone, new = {}, {}
    local list, size, number = gone, 0, nil
    local function add(position)
        size = size + 1
        list[size] = (position - start) * shift + number
    end
    for i = 1, #leaving do
        number = leaving[i]
        local peer = self.owners[number]
        self.points_of(peer, self.laid[peer], add)
        self.laid[peer] = nil
        self.owner_numbers[peer], self.owners[number] = nil, nil
        -- not before the new ones have theirs: a number must not have old and
        -- new points in one merge
        self.free[#self.free + 1] = number
    end
    list, size = new, 0
    for i = 1, #staying do
        local peer, weight = staying[i], self.weights[staying[i]] / unit
        number = numbers[i]
        self.laid[peer] = weight
        self.owner_numbers[peer], self.owners[number] = number, peer
        self.points_of(peer, weight, add)
    end
    sort_points(gone, shift)
    sort_points(new, shift)
    merge(self, gone, new)
    local parts = 2 ^ (32 - self.low_bits)
    if self.size <= parts and self.size * 4 >= parts then
        shift_index(self, gone, new)
    else
        index(self)
    end
end


--- Lays the changes: to be called before the ring is used, unless it is_laid.
function _M:settle()
    lay(self)
    self.changed, self.is_laid = {}, true
end


local function find(self, position)
    local positions, size = self.positions, self.size
    local at = self.first[part_of(position, self.low_bits)]
    while at < size and positions[at] < position do
        at = at + 1
    end
    return at
end


--- @param position on the circle
-- @return the place of the first point from there on; size when there is none
function _M:find(position)
    return find(self, position)
end


-- So many places when the point of a place lies before the position, and is not
-- one repeated behind the last; else 0.
local function step(self, at, position, places)
    local point = self.positions[at]
    -- The highest bit of a difference tells which is less, unless it does not
    -- fit into 32 bits; LuaJIT leaves compiled code where a plain one does not.
    local ahead = tobit(point - position)
    local lost = band(bxor(point, position), bxor(ahead, point))
    return (band(arshift(bxor(ahead, lost), 31),
                 arshift(tobit(at - self.size), 31), places))
end


-- A place not behind the first point from a position on, and at most two before
-- it: without a loop, and with a branch that hardly any look-up takes, when
-- eight points share a part. See docs/discoveries/exits-of-traces.md
local function place_near(self, position)
    local at = self.first[part_of(position, self.low_bits)]
    at = at + step(self, at + 3, position, 4)
    at = at + step(self, at + 1, position, 2)
    if step(self, at + 2, position, 1) ~= 0 then
        return find(self, position)
    end
    return at
end


-- Half of how far it is to a point, so that it is never below 0.
local function half_way(from, to)
    return (rshift(tobit(to - from), 1))
end


--- Looks for the first point from a position on. The ring has points.
-- @param position on the circle
-- @return half of how far it is to that point
function _M:distance(position)
    local positions, at = self.positions, place_near(self, position)
    return (min(half_way(position, positions[at]),
                half_way(position, positions[at + 1]),
                half_way(position, positions[at + 2])))
end


--- @param position on the circle
-- @return the peer that owns the first point from there on; there is one
function _M:owner(position)
    local at = place_near(self, position)
    at = at + step(self, at, position, 1)
    at = at + step(self, at, position, 1)
    return self.owners[self.numbers[at]]
end


--- @param at a place from 0 below size
-- @return the peer that owns its point
function _M:peer_at(at)
    return self.owners[self.numbers[at]]
end


--- @param at a place from 0 below size
-- @return the peer that owns its point, and the point's position
function _M:point(at)
    return self.owners[self.numbers[at]], self.positions[at]
end


return _M
