-- A binary min-heap that can also move or drop an item in the middle. Items are
-- tables; the heap keeps the place of an item in a field of it. Pure.

local floor = math.floor

local _M = {}
local mt = { __index = _M }


--- @param field of items that belongs to the heap
-- @return an empty heap
function _M.new(field)
    return setmetatable({ size = 0, items = {}, keys = {}, field = field }, mt)
end


local function up(self, i, item, key)
    local items, keys, field = self.items, self.keys, self.field
    while i > 1 do
        local parent = floor(i / 2)
        if keys[parent] <= key then
            break
        end
        local above = items[parent]
        items[i], keys[i] = above, keys[parent]
        above[field] = i
        i = parent
    end
    items[i], keys[i] = item, key
    item[field] = i
end


local function down(self, i, item, key)
    local items, keys, field = self.items, self.keys, self.field
    local size = self.size
    while true do
        local child = 2 * i
        if child > size then
            break
        end
        if child < size and keys[child + 1] < keys[child] then
            child = child + 1
        end
        if key <= keys[child] then
            break
        end
        local below = items[child]
        items[i], keys[i] = below, keys[child]
        below[field] = i
        i = child
    end
    items[i], keys[i] = item, key
    item[field] = i
end


--- Puts an item in, or moves it when it is there. O(log n).
function _M:set(item, key)
    local i = item[self.field]
    if not i then
        self.size = self.size + 1
        up(self, self.size, item, key)
    elseif key < self.keys[i] then
        up(self, i, item, key)
    else
        down(self, i, item, key)
    end
end


--- Takes an item out; one that is not there is no error. O(log n).
function _M:remove(item)
    local i = item[self.field]
    if not i then
        return
    end

    local size = self.size
    local last, key = self.items[size], self.keys[size]
    self.items[size], self.keys[size] = nil, nil
    item[self.field] = nil
    self.size = size - 1
    if last ~= item then
        last[self.field] = i
        if key < self.keys[i] then
            up(self, i, last, key)
        else
            down(self, i, last, key)
        end
    end
end


--- @return the item of the smallest key and that key, or nil
function _M:top()
    return self.items[1], self.keys[1]
end


return _M
