-- Proves the merge (RFC 7396) and the canonical text: equal documents have
-- equal text, and reading it gives back what was written.

local cjson = require("cjson.safe")
local document = require("reloadless.table.document")
local json = require("reloadless.table.json")

local null = ngx.null
local random = math.random


local function one_of(...)
    return (select(random(select("#", ...)), ...))
end


local function random_text()
    local out = {}
    for i = 1, random(12) do
        out[i] = one_of("a", "Z", "0", " ", "/", "\\", '"', "~", "ü", "€",
                        "[", "]", "{", "}", ":", ",", "</script>", "\\n")
    end
    return table.concat(out)
end


local function maybe(value)
    return random(2) == 1 and value or nil
end


local function random_peer()
    return {
        weight = maybe(random(0, 65535)),
        backup = one_of(true, false, nil),
        drain = one_of(true, false, nil),
        down = one_of(true, nil),
        id = maybe(random_text()),
        zone = maybe(random_text()),
        max_conns = maybe(random(0, 65535)),
        slow_start = maybe(random(0, 86400000) / 1000),
        max_fails = maybe(random(0, 65535)),
        fail_timeout = maybe(random(0, 86400000) / 1000),
    }
end


local function random_settings()
    return {
        owner = maybe(random_text()),
        balance = one_of("ewma", "random", nil),
        hash_key = maybe("$" .. random_text()),
        sticky = maybe("cookie"),
        max_fails = maybe(random(0, 65535)),
        max_tries = maybe(random(100)),
        fail_timeout = maybe(random(0, 86400000) / 1000),
        connect_timeout = maybe(random(0, 1000) / 1000),
        zone = maybe(random_text()),
    }
end


local function random_key()
    return table.concat({ random(255), random(0, 255), random(0, 255),
                          random(0, 255) }, ".") .. ":" .. random(65535)
end


-- The same pairs in a table that was filled in another order.
local function shuffled(object)
    local names = {}
    for name in pairs(object) do
        table.insert(names, random(#names + 1), name)
    end
    local copy = {}
    for i = 1, 5 do
        copy["junk" .. i] = i
    end
    for _, name in ipairs(names) do
        copy[name] = object[name]
    end
    for i = 1, 5 do
        copy["junk" .. i] = nil
    end
    return copy
end


describe("canonical text", function()
    it("gives back the settings", function()
        for _ = 1, 1000 do
            local settings = random_settings()
            local text = json.encode_settings(settings)
            assert.same(settings, cjson.decode(text))
            assert(json.encode_settings(shuffled(settings)) == text)
        end
    end)

    it("gives back the peers, in an order of its own", function()
        for size = 0, 100 do
            local peers = {}
            for _ = 1, size do
                peers[random_key()] = random_peer()
            end
            local text = json.encode_peers(peers)
            assert.same(peers, json.decode_peers(text))
            assert(json.encode_peers(shuffled(peers)) == text)
            assert.is_nil(text:find("%c"))
        end
    end)

    it("has one text for one number", function()
        for text, number in pairs({
            ["0"] = -0.0, ["1"] = 1.0, ["0.1"] = 0.1, ["0.3"] = 0.3,
            ["86399.999"] = 86399.999, ["0.001"] = 0.001, ["65535"] = 6.5535e4,
        }) do
            assert.same('{"fail_timeout":' .. text .. "}",
                        json.encode_settings({ fail_timeout = number }))
        end
        for ms = 0, 86400000, 977 do
            local text = json.encode_settings({ fail_timeout = ms / 1000 })
            assert(cjson.decode(text).fail_timeout == ms / 1000, text)
        end
    end)

    it("is written in the order of the design", function()
        assert.same('{"weight":2,"backup":true,"drain":false,"id":"web-1",'
                    .. '"zone":"a/b","max_conns":5,"slow_start":0.5}',
                    json.encode_peers({ ["x"] = {
                        slow_start = 0.5, zone = "a/b", drain = false,
                        id = "web-1", max_conns = 5, backup = true, weight = 2,
                    } }):match("^\"x\":(.*)$"))
        assert.same("", json.encode_peers({}))
        assert.same("{}", json.encode_settings({}))
    end)
end)


describe("the merge", function()
    -- RFC 7396, appendix A: its examples of plain fields
    for i, case in ipairs({
        { { a = "b" }, { a = "c" }, { a = "c" } },
        { { a = "b" }, { b = "c" }, { a = "b", b = "c" } },
        { { a = "b" }, { a = null }, {} },
        { { a = "b", b = "c" }, { a = null }, { b = "c" } },
        { { e = null }, { a = 1 }, { e = null, a = 1 } },
    }) do
        it("gives what RFC 7396 says, example " .. i, function()
            assert.same(case[3], document.merge(case[1], case[2]))
        end)
    end

    it("makes of any peer any other, by a patch of what differs", function()
        for _ = 1, 1000 do
            local from, to = random_peer(), random_peer()
            local before, patch = shuffled(from), shuffled(to)
            for name, value in pairs(from) do
                if to[name] == nil then
                    patch[name] = null
                elseif to[name] == value then
                    patch[name] = nil
                end
            end
            assert.same(to, document.merge(from, patch))
            assert.same(before, from)
        end
    end)

    it("takes null for a field that is not there", function()
        assert.same({ weight = 1 },
                    document.merge({ weight = 1 }, { zone = null }))
    end)

    it("takes false for a value", function()
        assert.same({ backup = false },
                    document.merge({ backup = true }, { backup = false }))
    end)

    it("leaves peers to others", function()
        assert.same({ owner = "a" },
                    document.merge({ owner = "b" },
                                   { owner = "a", peers = { x = {} } }))
    end)
end)


describe("JSON", function()
    for _, text in ipairs({ "", " ", "{", '{"a":}', "{'a':1}", "{a:1}", "nul",
                            '{"a":NaN}', '{"a":Infinity}', '{"a":0x10}',
                            '{"a":1,}', '{"a":1}x', '"a', '{"a":01}', "\0" })
    do
        it("is not " .. ("%q"):format(text), function()
            local value, err = json.decode(text)
            assert.is_nil(value)
            assert.same(400, err.status)
            assert.matches("^the body is not JSON: ", err.detail)
        end)
    end

    it("nests so deep and no deeper", function()
        local text = ('{"a":'):rep(2000) .. "1" .. ("}"):rep(2000)
        assert.same(400, select(2, json.decode(text)).status)
    end)

    it("is written with / as it is", function()
        assert.same('{"a/b":"c/d\\\\/"}', json.encode({
            ["a/b"] = "c/d\\/" }))
    end)
end)
