-- A set whose items lie side by side, so that one can look for an item that is
-- not in another set. Pure.

local min = math.min
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @return an empty bag
function _M.new()
    return setmetatable({ size = 0, items = {}, places = {}, added = 0 }, mt)
end


--- Puts an item in, if it is not there.
function _M:add(item)
    if not self.places[item] then
        self.size, self.added = self.size + 1, self.added + 1
        self.items[self.size], self.places[item] = item, self.size
    end
end


--- Takes an item out; one that is not there is no error.
function _M:remove(item)
    local place = self.places[item]
    if place then
        local last = self.items[self.size]
        self.items[place], self.places[last] = last, place
        self.items[self.size], self.places[item] = nil, nil
        self.size = self.size - 1
    end
end


--- Looks for an item that is not in a set which grows. The set keeps, under the
-- bag, how far the search has come: it looks at each item once, not once for
-- each item of the set. Whoever leaves makes room for the last, which was
-- looked at before; whoever comes makes it begin anew.
-- @param set of items
-- @return an item, or nil when all are in the set
function _M:find_outside(set)
    local search = set[self]
    if not search or search.added ~= self.added then
        search = { at = self.size, added = self.added }
        set[self] = search
    end
    local items, at = self.items, min(search.at, self.size)
    while at > 0 and set[items[at]] do
        at = at - 1
    end
    search.at = at
    return items[at]
end


return _M
