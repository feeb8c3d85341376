-- Proves the heap against a plain table that is searched for its smallest key.

local heap = require("reloadless.structure.heap")


local function smallest(model)
    local key
    for _, other in pairs(model) do
        key = key and math.min(key, other) or other
    end
    return key
end


local function count(model)
    local n = 0
    for _ in pairs(model) do
        n = n + 1
    end
    return n
end


local function check(queue, model)
    local item, key = queue:top()
    assert(key == smallest(model), "not the smallest key")
    assert(item == nil or model[item] == key, "not the key of the item")
    assert(queue.size == count(model), "not the right size")
end


describe("a heap", function()
    it("has its smallest key on top after any operations", function()
        for _, items in ipairs({ 1, 2, 3, 10, 60 }) do
            local queue, model, all = heap.new("place"), {}, {}
            for i = 1, items do
                all[i] = {}
            end
            for _ = 1, 5000 do
                local item = all[math.random(items)]
                if math.random(3) == 1 then
                    queue:remove(item)
                    model[item] = nil
                else
                    -- few different keys: equal ones are common
                    local key = math.random(20)
                    queue:set(item, key)
                    model[item] = key
                end
                check(queue, model)
            end
        end
    end)

    it("gives everything out in order", function()
        local queue, keys = heap.new("place"), {}
        for i = 1, 2000 do
            keys[i] = math.random()
            queue:set({}, keys[i])
        end
        table.sort(keys)
        for i = 1, 2000 do
            local item, key = queue:top()
            assert.same(keys[i], key)
            queue:remove(item)
        end
        assert.is_nil((queue:top()))
    end)

    it("keeps nothing of what was removed", function()
        local queue, all = heap.new("place"), {}
        for i = 1, 100 do
            all[i] = {}
            queue:set(all[i], -i)
        end
        for i = 1, 100 do
            queue:remove(all[i])
            queue:remove(all[i])
            assert.same({}, all[i])
        end
        assert.same({ size = 0, items = {}, keys = {} },
                    { size = queue.size, items = queue.items,
                      keys = queue.keys })
    end)
end)
