-- Proves what a refusal says, where a peer may be, and what a merge patch may
-- hold. Which values are good and bad is in test/cases/values.txt.

local document = require("reloadless.table.document")

local null = ngx.null


local function refuse_none()
    return nil
end


-- @return the error of an upstream given whole, or nil
local function refusal(upstream, refuse)
    local job, err = document.check({ name = "web", value = upstream,
                                      replace = true, pointer = "" },
                                    refuse or refuse_none)
    assert(not job == (err ~= nil))
    return err
end


local key = "10.0.0.5:8080"


describe("a peer", function()
    local at = "/peers/" .. key

    it("is told the field, its value and what was expected", function()
        assert.same({ status = 422, pointer = at .. "/weight",
                      detail = "weight is 65536: expected an integer from 0"
                               .. " to 65535" },
                    refusal({ peers = { [key] = { weight = 65536 } } }))
        assert.same('unknown field "wieght"',
                    refusal({ peers = { [key] = { wieght = 1 } } }).detail)
    end)

    it("is where nobody refuses it", function()
        local err = refusal({ peers = { [key] = {} } }, function(peer)
            assert.same({ 10, 0, 0, 5 }, peer.bytes)
            return "another"
        end)
        assert.same({ status = 422, pointer = at,
                      detail = 'the address is "10.0.0.5:8080":'
                               .. " expected another" }, err)
    end)

    it("has an address", function()
        local err = refusal({ peers = { ["web~1/2"] = {} } })
        assert.same("/peers/web~01~12", err.pointer)
        assert.same('the address is "web~1/2": expected an IP address and a'
                    .. " port, as 10.0.0.5:8080 or [fd00::7]:8080", err.detail)
    end)
end)


describe("a merge patch of an upstream", function()
    local function patch(value)
        local _, err = document.check({ name = "web", value = value,
                                        replace = false, pointer = "/p" },
                                      function()
            return "none at all"
        end)
        return err
    end

    it("may hold null for each field and for each peer", function()
        assert.is_nil(patch(null))
        assert.is_nil(patch({ owner = null, zone = null, peers = {} }))
        assert.is_nil(patch({ peers = null }))
        -- an address that is not allowed any more can still be taken out
        assert.is_nil(patch({ peers = { [key] = null } }))
        assert.same("/p/peers/" .. key,
                    patch({ peers = { [key] = {} } }).pointer)
    end)

    it("may hold no unknown field, not even null", function()
        assert.same("/p/x", patch({ x = null }).pointer)
        assert.same("/p/peers/web:80", patch({ peers = { ["web:80"] = null } })
                                       .pointer)
    end)
end)


describe("a document", function()
    local function check(body, replace)
        return document.check_all(body, replace, refuse_none)
    end
    local function pointer(body, replace)
        local jobs, err = check(body, replace)
        assert.is_nil(jobs)
        assert.same(422, err.status)
        return err.pointer
    end

    it("is refused with all that is wrong, up to a bound", function()
        local upstreams = { good = { peers = { [key] = {} } } }
        for _, name in ipairs({ "a", "b" }) do
            upstreams[name] = { zone = 5, peers = {
                [key] = {}, ["10.0.0.6:80"] = { weight = -1 }, ["x"] = {},
            } }
        end
        local _, err = check({ upstreams = upstreams }, false)
        local pointers = {}
        for i, one in ipairs(err.errors) do
            assert.truthy(one.detail)
            pointers[i] = one.pointer
        end
        assert.same(err.pointer, pointers[1])
        table.sort(pointers)
        assert.same({
            "/upstreams/a/peers/10.0.0.6:80/weight", "/upstreams/a/peers/x",
            "/upstreams/a/zone",
            "/upstreams/b/peers/10.0.0.6:80/weight", "/upstreams/b/peers/x",
            "/upstreams/b/zone",
        }, pointers)

        for _, name in ipairs({ "a", "b" }) do
            for i = 1, 2000 do
                upstreams[name].peers["x" .. i] = {}
            end
        end
        _, err = check({ upstreams = upstreams }, false)
        assert.same(1000, #err.errors)
    end)

    it("has upstreams when it is whole; as a patch it may be empty", function()
        assert.same("/upstreams", pointer({}, true))
        assert.same({}, check({}, false))
        assert.same("/upstreams/web", pointer({ upstreams = { web = null } },
                                              true))
        assert.same(null, check({ upstreams = { web = null } }, false)[1].value)
    end)
end)
