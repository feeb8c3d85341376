-- Proves the tournament against a plain table that is searched for its smallest
-- keys.

local tournament = require("reloadless.structure.tournament")

local random = math.random


local function best_of(model)
    local best
    for _, keys in pairs(model) do
        if not best or keys[1] < best[1]
           or (keys[1] == best[1] and keys[2] < best[2])
        then
            best = keys
        end
    end
    return best
end


describe("a tournament", function()
    it("has its smallest keys first after any operations", function()
        for _, count in ipairs({ 1, 2, 3, 10, 70, 1000 }) do
            local race, model, size = tournament.new(), {}, 0
            local items = {}
            for i = 1, count do
                items[i] = {}
            end
            for _ = 1, 5000 do
                local item = items[random(count)]
                if random(3) == 1 then
                    size = size - (model[item] and 1 or 0)
                    race:remove(item)
                    model[item] = nil
                else
                    size = size + (model[item] and 0 or 1)
                    -- few different keys: equal ones are common
                    model[item] = { random(9), random() }
                    race:set(item, model[item][1], model[item][2])
                end
                assert(model[race:first() or 0] == best_of(model))
                assert(race.size == size)
            end
        end
    end)
end)
