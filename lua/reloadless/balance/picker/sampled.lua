-- The base of pickers that draw two peers by weight and take the better one
-- (Mitzenmacher, "The Power of Two Choices", 2001).

local sampler = require("reloadless.structure.sampler")

local draw_two = sampler.draw_two
local pairs = pairs
local setmetatable = setmetatable


--- @param cost function(peer, weight): of two peers the one of lower cost gets
--   the request, the first at equal cost
-- @return the methods of a picker
return function(cost)
    local _M = {}
    local mt = { __index = _M }


    --- @return a picker without peers
    function _M.new()
        return setmetatable({ sampler = sampler.new(), weights = {} }, mt)
    end


    --- Adds a peer, or gives it another weight (above 0).
    function _M:set(peer, weight)
        if self.weights[peer] ~= weight then
            self.weights[peer] = weight
            self.sampler:set(peer, weight)
        end
    end


    --- Takes a peer out.
    function _M:remove(peer)
        self.weights[peer] = nil
        self.sampler:remove(peer)
    end


    local function pick(self)
        local all = self.sampler
        local items, weights = all.items, all.weights
        if all.size < 2 then
            return items[1]
        end

        local first, second = draw_two(all)
        local one, other = items[first], items[second]
        if cost(other, weights[second]) < cost(one, weights[first]) then
            return other
        end
        return one
    end


    --- @param tried set of peers that must not be picked, or nil
    -- @return a peer, or nil when none is left
    function _M:pick(tried)
        if not tried then
            return pick(self)
        end

        local weights = self.weights
        for peer in pairs(tried) do
            self.sampler:remove(peer)
        end
        local picked = pick(self)
        for peer in pairs(tried) do
            if weights[peer] then
                self.sampler:set(peer, weights[peer])
            end
        end
        return picked
    end


    return _M
end
