-- Proves what people have said goes over what a snapshot gives, and how it lies
-- in its file.

local format = require("reloadless.boot.format")
local state = require("reloadless.boot.state")


local function job(name, value)
    return { name = name, value = value, replace = true, pointer = "" }
end


-- @return values by name
local function over(jobs, kept)
    local out = {}
    for _, merged in ipairs(state.over(jobs, kept, 1000)) do
        assert.is_nil(out[merged.name])
        out[merged.name] = merged.value
    end
    return out
end


describe("what people have said", function()
    local down = { a = { down = true } }
    local peers = { a = {}, b = {} }

    it("goes over the snapshot", function()
        assert.same({
            web = { owner = "x", peers = peers, overrides = down },
            plain = { owner = "x", peers = peers },
            mine = { peers = { c = {} } },
            gone = { overrides = down },
        }, over({
            job("web", { owner = "x", peers = peers }),
            job("plain", { owner = "x", peers = peers }),
            job("mine", { owner = "x", peers = peers }),
        }, {
            job("web", { overrides = down }),
            job("mine", { peers = { c = {} } }),
            job("gone", { overrides = down }),
        }))
    end)

    it("has ended when its time has passed", function()
        local ended = { a = { down = true, expires_at = 1000 } }
        local lasting = { down = true, expires_at = 1001 }
        assert.same({
            web = { owner = "x", peers = peers },
            both = { overrides = { b = lasting } },
            mine = { peers = {} },
        }, over({ job("web", { owner = "x", peers = peers }) }, {
            job("web", { overrides = ended }),
            job("gone", { overrides = ended }),
            job("both", { overrides = { a = ended.a, b = lasting } }),
            job("mine", { peers = {}, overrides = ended }),
        }))
    end)

    it("lies in a file with a header", function()
        assert.same('{"format":1,"saved_at":"2026-01-31T12:00:00Z",'
                    .. '"length":9,"crc32":3421780262}\n123456789\n',
                    format.encode("123456789", 1769860800))
    end)
end)
