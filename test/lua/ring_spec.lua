-- Proves the ring against a plain list of its points.

local check = require("test.lua.check")
local rings = require("reloadless.structure.ring")

local circle = rings.circle
local floor = math.floor
local random = math.random
local tobit = require("bit").tobit


-- Three points for each unit of weight, at places of the peer's own.
local function points(peer, weight, add)
    for i = 1, floor(weight * 3) do
        add(peer.places[i])
    end
end




-- Its places are anywhere, or all of them near one.
local function new_peer()
    local places = {}
    local from, width = random() * circle, circle
    if random(3) == 1 then
        width = random(3) == 1 and 20 or circle / 1000
    end
    for i = 1, 27 do
        places[i] = tobit(from + random() * width)
    end
    return { places = places }
end


local function list_of(weights)
    local list = {}
    for peer, weight in pairs(weights) do
        points(peer, weight, function(position)
            list[#list + 1] = { position, peer }
        end)
    end
    table.sort(list, function(a, b)
        return a[1] < b[1]
    end)
    return list
end


local function assert_same(ring, list)
    assert(ring.size == #list)
    for at, point in ipairs(list) do
        local peer, position = ring:point(at - 1)
        assert(peer == point[2] and position == point[1])
    end

    for _ = 1, 20 do
        -- anywhere, on a point, or just behind it
        local near = list[random(#list)][1]
        local from = tobit(random(2) == 1 and random() * circle
                           or near + random(0, 1))
        local place = 0
        while place < #list and list[place + 1][1] < from do
            place = place + 1
        end
        assert(ring:find(from) == place)
        local point = list[place % #list + 1]
        assert(ring:owner(from) == point[2])
        assert(ring:distance(from) == floor((point[1] - from) % circle / 2))
    end
end


describe("a ring", function()
    it("has its points in order, and finds them, after any changes", function()
        local ring = rings.new(points)
        local peers, weights = {}, {}
        for i = 1, 300 do
            peers[i] = new_peer()
        end

        -- grows, and shrinks again
        for round = 1, 300 do
            for _ = 1, random(6) do
                local peer = peers[random(#peers)]
                local is_to_go = random(300) < (round < 150 and 40 or 240)
                weights[peer] = not is_to_go and random(9) or nil
                if is_to_go then
                    ring:remove(peer)
                else
                    ring:set(peer, weights[peer])
                end
            end
            ring:settle()
            if next(weights) then
                assert_same(ring, list_of(weights))
            end
        end
    end)
end)

describe("a ring whose points share positions", function()
    -- The seed is told with what fails, and is taken from SEED.
    local seed = tonumber(os.getenv("SEED")) or 20

    local function colliding_points(peer, weight, add)
        for i = 1, weight do
            add(floor(peer.seed * i % peer.range * circle / peer.range)
                + rings.start)
        end
    end

    it("keeps the points of each peer when many change at once", function()
        math.randomseed(seed)
        for round = 1, 8 do
            -- from no list of 1,000 points to one of 100,000
            local count = floor(10 ^ (1.5 + random() * 2))
            local range = floor(10 ^ (2 + random() * 4))
            local ring, weights = rings.new(colliding_points), {}
            local peers = {}
            for i = 1, count do
                peers[i] = { seed = random(1000), range = range }
            end
            for change = 1, 6 do
                local most = random(3) == 1 and random(60) or 30
                for _, peer in ipairs(peers) do
                    if random(4) == 1 then
                        ring:remove(peer)
                        weights[peer] = nil
                    elseif random(4) > 1 then
                        weights[peer] = random(most)
                        ring:set(peer, weights[peer])
                    end
                end
                ring:settle()
                local ok, err = pcall(check.ring, ring, weights)
                assert(ok, string.format("seed %d, round %d, change %d: %s",
                                         seed, round, change, err))
            end
        end
    end)
end)
