-- Sorts the points of a ring by position and owner. Pure.

local bit = require("bit")
local ffi = require("ffi")

local band = bit.band
local floor = math.floor
local rshift = bit.rshift
local sort = table.sort

local _M = {}

local doubles = ffi.typeof("double[?]")
local integers = ffi.typeof("int32_t[?]")
-- from where a radix sort is faster than table.sort
local many = 1000


-- Sorts by position, 11 bits at a time. Points of one position stay in the
-- order in which they came, that of their owners' numbers.
local function radix_sort(list, shift)
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


--- @param list of points, each of them position * shift + number: a position of
--   32 bits and the number of its owner. Points of one owner come one after the
--   other, and owners in the order of their numbers.
function _M.sort(list, shift)
    if #list < many then
        sort(list)
    else
        radix_sort(list, shift)
    end
end


return _M
