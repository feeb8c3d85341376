-- Proves that peers are dealt in turns, those that take new traffic first.

local deal = require("reloadless.boot.deal")


local function job(name, peers)
    return { name = name, replace = true, pointer = "/upstreams/" .. name,
             value = { owner = "o", peers = peers } }
end


-- @return the peers of each upstream when so many cards are dealt
local function dealt(jobs, count)
    local out = {}
    for _, part in ipairs(deal.jobs(deal.cards(jobs), count)) do
        assert.same("o", part.value.owner)
        local keys = {}
        for key in pairs(part.value.peers) do
            keys[#keys + 1] = key
        end
        table.sort(keys)
        out[part.name] = table.concat(keys, " ")
    end
    return out
end


describe("peers that do not all fit", function()
    local jobs = {
        job("b", { a = { drain = true }, b = { weight = 0 }, c = {},
                   d = { weight = 2 } }),
        job("a", { x = {}, y = { backup = true } }),
        job("c"),
    }

    it("are dealt in turns", function()
        assert.same({}, dealt(jobs, 0))
        assert.same({ a = "x" }, dealt(jobs, 1))
        assert.same({ a = "x", b = "c", c = "" }, dealt(jobs, 3))
        assert.same({ a = "x y", b = "c", c = "" }, dealt(jobs, 4))
        assert.same({ a = "x y", b = "a c d", c = "" }, dealt(jobs, 6))
        assert.same({ a = "x y", b = "a b c d", c = "" }, dealt(jobs, 7))
    end)

    it("are told, upstream by upstream", function()
        local cards = deal.cards(jobs)
        local lines, peers, missing = deal.left_out(cards, 1)
        assert.same({ "b is left out", "c is left out",
                      "a: 1 of 2 peers are left out" }, lines)
        assert.same({ 6, 5 }, { peers, missing })
        assert.same({ "b: 2 of 4 peers are left out" },
                    (deal.left_out(cards, 5)))
        assert.same({}, (deal.left_out(cards, 7)))
    end)

    it("leave the upstreams given as they were", function()
        dealt(jobs, 4)
        assert.same({ x = {}, y = { backup = true } }, jobs[2].value.peers)
    end)
end)
