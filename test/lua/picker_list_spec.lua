-- Proves that a picker which is none is named when it is loaded, and that each
-- of the list keeps the contract.

local list = require("reloadless.balance.picker.list")
local named = require("test.lua.named")

local random = math.random


local function nothing()
end


-- @return what a picker must have, with some other fields
local function with(fields)
    local module = { new = nothing, set = nothing, remove = nothing,
                     pick = nothing }
    for name, value in pairs(fields) do
        module[name] = value
    end
    return module
end


describe("a new picker", function()
    local names = list.names

    local function load(module)
        package.loaded["reloadless.balance.picker.dummy"] = module
        list.names = { "round_robin", "dummy" }
        return list.load()
    end

    after_each(function()
        package.loaded["reloadless.balance.picker.dummy"] = nil
        list.names = names
    end)

    it("is its file, and its name in the list", function()
        local module = with({ update = nothing, observe = nothing,
                              whole_weights = true })
        assert.equal(module, load(module).dummy)
    end)

    it("has each function that a picker needs", function()
        for _, name in ipairs({ "new", "set", "remove", "pick" }) do
            local module = with({})
            module[name] = nil
            assert.has_error(function()
                load(module)
            end, "reloadless: picker dummy has no function " .. name)
        end
    end)

    it("has nothing that a picker does not have", function()
        for expected, fields in pairs({
            ["has updates, which no picker has"] = { updates = nothing },
            ["has pick, a boolean: expected a function"] = { pick = true },
            ["has observe, a table: expected a function"] = { observe = {} },
            ["has whole_weights, a number: expected a boolean"] =
                { whole_weights = 1 },
        }) do
            assert.has_error(function()
                load(with(fields))
            end, "reloadless: picker dummy " .. expected)
        end
    end)

    it("is a table", function()
        assert.has_error(function()
            load(nothing)
        end, "reloadless: picker dummy is a function: expected a table of"
             .. " functions")
    end)
end)


for name, module in pairs(list.load()) do
    describe("picker " .. name, function()
        local picker

        -- As a request does.
        local function pick(tried, key)
            local picked = picker:pick(tried, key or "key" .. random(1000))
            if picked and module.update then
                picker.real:update(picker.peers[picked])
            end
            return picked
        end

        before_each(function()
            picker = named(module.new())
        end)

        it("has nobody when it is empty, before and after", function()
            assert.is_nil(pick())
            assert.is_nil(pick({ a = true }))
            picker:set("a", 1)
            assert.same("a", pick())
            assert.is_nil(pick({ a = true }))
            picker:remove("a")
            picker:remove("a")
            assert.is_nil(pick())
        end)

        it("picks each peer, and one that was tried never", function()
            local seen, count = {}, 0
            for peer = 1, 6 do
                picker:set(peer, peer)
            end
            for _ = 1, 100 do
                local tried = {}
                local peer = pick()
                while peer do
                    assert(not tried[peer])
                    tried[peer] = true
                    count = count + (seen[peer] and 0 or 1)
                    seen[peer] = true
                    -- it may give up, never give one again
                    peer = pick(tried)
                end
            end
            assert.same(6, count)
        end)

        it("is as it was after a try beside those that were tried", function()
            for peer = 1, 3 do
                picker:set(peer, 1)
            end
            for _ = 1, 50 do
                pick({ [1] = true, [2] = true, stranger = true })
            end
            local seen = {}
            for _ = 1, 100 do
                seen[pick()] = true
            end
            assert.same({ true, true, true }, seen)
        end)

        it("takes a peer that is not in", function()
            picker:set("a", 1)
            picker:remove("b")
            if module.update then
                picker.real:update(picker.peers.b)
            end
            assert.same("a", pick())
        end)

        it("takes any weight of the document", function()
            picker:set("a", 65535)
            picker:set("b", 1)
            assert.is_not_nil(pick())
            picker:set("a", 1)
            if not module.whole_weights then
                -- as slow start gives them
                picker:set("a", 0.05)
            end
            picker:remove("b")
            assert.same("a", pick())
        end)
    end)
end
