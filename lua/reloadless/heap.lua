-- A binary min-heap that can also move or drop an item in the middle. Items
-- are tables; the heap keeps its place of an item in item.place. Equal keys are
-- told apart by a second one. Pure.

local floor = math.floor
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @return an empty heap
function _M.new()
    return setmetatable({ size = 0, items = {}, keys = {}, ties = {} }, mt)
end


local function up(self, i, item, key, tie)
    local items, keys, ties = self.items, self.keys, self.ties
    while i > 1 do
        local parent = floor(i / 2)
        local above = keys[parent]
        if above < key or (above == key and ties[parent] <= tie) then
            break
        end
        local moved = items[parent]
        items[i], keys[i], ties[i] = moved, above, ties[parent]
        moved.place = i
        i = parent
    end
    items[i], keys[i], ties[i] = item, key, tie
    item.place = i
end


local function down(self, i, item, key, tie)
    local items, keys, ties = self.items, self.keys, self.ties
    local size = self.size
    while true do
        local child = 2 * i
        if child > size then
            break
        end
        local below = keys[child]
        if child < size then
            local other = keys[child + 1]
            if other < below
               or (other == below and ties[child + 1] < ties[child])
            then
                child, below = child + 1, other
            end
        end
        if key < below or (key == below and tie <= ties[child]) then
            break
        end
        local moved = items[child]
        items[i], keys[i], ties[i] = moved, below, ties[child]
        moved.place = i
        i = child
    end
    items[i], keys[i], ties[i] = item, key, tie
    item.place = i
end


--- Puts an item in, or moves it when it is there. O(log n).
-- @param key number, the smallest comes first
-- @param tie number that orders equal keys; default 0
function _M:set(item, key, tie)
    tie = tie or 0
    local i = item.place
    if not i then
        self.size = self.size + 1
        return up(self, self.size, item, key, tie)
    end

    local was = self.keys[i]
    if key < was or (key == was and tie < self.ties[i]) then
        up(self, i, item, key, tie)
    else
        down(self, i, item, key, tie)
    end
end


--- Takes an item out; one that is not there is no error. O(log n).
function _M:remove(item)
    local i = item.place
    if not i then
        return
    end

    local size = self.size
    local last = self.items[size]
    local key, tie = self.keys[size], self.ties[size]
    self.items[size], self.keys[size], self.ties[size] = nil, nil, nil
    self.size = size - 1
    item.place = nil
    if last ~= item then
        -- takes the free place, then finds its own
        last.place = i
        self:set(last, key, tie)
    end
end


--- @return the item of the smallest key and that key, or nil
function _M:top()
    return self.items[1], self.keys[1]
end


return _M
