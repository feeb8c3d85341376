-- The base of pickers that draw two peers by weight and take the better one
-- (Mitzenmacher, "The Power of Two Choices", 2001).

local sampler = require("reloadless.structure.sampler")

local draw_two = sampler.draw_two
local setmetatable = setmetatable

-- So often a retry draws, to find a peer that was not tried.
local most_draws = 20


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


    -- Draws until a peer was not tried.
    local function pick_other(self, tried)
        for _ = 1, most_draws do
            local peer = pick(self)
            if peer and not tried[peer] then
                return peer
            end
        end
    end


    --- @param tried set of peers that must not be picked, or nil
    -- @return a peer, or nil when none is found
    function _M:pick(tried)
        if tried then
            return pick_other(self, tried)
        end
        return pick(self)
    end


    return _M
end
