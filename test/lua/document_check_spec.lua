-- Proves what the table takes and refuses, field by field, and that a refusal
-- points at what is wrong (RFC 6901).

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


local function check_field(wrap, at, name, taken, refused)
    for _, value in ipairs(taken) do
        it("takes " .. name .. " " .. tostring(value), function()
            assert.is_nil(refusal(wrap({ [name] = value })))
        end)
    end
    for _, value in ipairs(refused) do
        it("refuses " .. name .. " " .. tostring(value), function()
            local err = refusal(wrap({ [name] = value }))
            assert.same(422, err.status)
            assert.same(at .. "/" .. name, err.pointer)
            assert.matches("^" .. name .. " is .*: expected ", err.detail)
        end)
    end
end


local key = "10.0.0.5:8080"
local inf = 1 / 0
local small = { -1, 65536, 1.5, "1", true, null, {}, inf, -inf }
local time = { 0, 0.001, 0.1, 1, 2.5, 86399.999, 86400 }
local no_time = { -0.001, 86400.001, 0.0001, "1s", true, null, {}, inf }


local function text(high)
    return { "a", "a b", "ü", "/~\"\\", ("x"):rep(high) },
           { "", ("x"):rep(high + 1), "a\nb", "a\0", "\127", 5, true, null,
             {} }
end


describe("a peer", function()
    local function wrap(peer)
        return { peers = { [key] = peer } }
    end
    local at = "/peers/" .. key

    check_field(wrap, at, "weight", { 0, 1, 65535 }, small)
    check_field(wrap, at, "backup", { true, false }, { 0, "true", null, {} })
    check_field(wrap, at, "drain", { true, false }, { 1, "false", null, {} })
    check_field(wrap, at, "id", text(255))
    check_field(wrap, at, "zone", text(255))
    check_field(wrap, at, "max_conns", { 0, 1, 65535 }, small)
    check_field(wrap, at, "slow_start", time, no_time)

    it("is an object, its field a known one", function()
        for _, peer in ipairs({ null, 1, "up", true }) do
            assert.same(at, refusal(wrap(peer)).pointer)
        end
        assert.same(at .. "/wieght", refusal(wrap({ wieght = 1 })).pointer)
    end)

    it("is where nobody refuses it", function()
        local err = refusal(wrap({}), function(peer)
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


describe("an upstream", function()
    local function wrap(upstream)
        return upstream
    end

    check_field(wrap, "", "owner", text(128))
    check_field(wrap, "", "zone", text(255))
    check_field(wrap, "", "balance", { "round_robin", "least_conn", "ewma",
                                       "random" },
                { "roundrobin", "", "Hash", 1, true, null, {} })
    check_field(wrap, "", "hash_key",
                { "$remote_addr", "$a$b", "x-${arg_id}", "$${a}{b}", "${_}$",
                  "$" .. ("x"):rep(1023) },
                { "", "remote_addr", "$", "$ ", "$" .. ("x"):rep(1024),
                  "${a", "${}", "$a${", "$a${b-c}",
                  "$a\n", "$a\0", 1, true, null, {} })
    check_field(wrap, "", "sticky", { "s", "my_Session-1", ("x"):rep(64) },
                { "", "a b", "a;b", "a=b", "ü", ("x"):rep(65), 1, true, null,
                  {} })
    check_field(wrap, "", "max_fails", { 0, 1, 65535 }, small)
    check_field(wrap, "", "max_tries", { 1, 100 },
                { 0, 101, 1.5, "1", true, null, {}, inf })
    for _, name in ipairs({ "fail_timeout", "connect_timeout", "send_timeout",
                            "read_timeout" })
    do
        check_field(wrap, "", name, time, no_time)
    end

    it("is an object, its field a known one", function()
        for _, upstream in ipairs({ null, 1, "web", true }) do
            assert.same("", refusal(upstream).pointer)
        end
        assert.same("/", refusal({ [""] = 1 }).pointer)
        assert.same("/a~1~0b", refusal({ ["a/~b"] = 1 }).pointer)
        assert.same("/version", refusal({ version = 1 }).pointer)
    end)

    it("has peers by address", function()
        for _, peers in ipairs({ null, 1, "web", true }) do
            assert.same("/peers", refusal({ peers = peers }).pointer)
        end
    end)

    it("needs a hash_key to balance by hash", function()
        local err = document.check_settings({ balance = "hash" }, "/x")
        assert.same("/x/hash_key", err.pointer)
        assert.is_nil(document.check_settings({ balance = "hash",
                                                hash_key = "$uri" }, "/x"))
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

    it("has names of 1 to 128 characters that nginx takes", function()
        for _, name in ipairs({ "a", "web", "A-Z_0.9", ("x"):rep(128), "...",
                                ".a", "a." })
        do
            assert.same(name, check({ upstreams = { [name] = {} } }, true)[1]
                              .name)
        end
        for _, name in ipairs({ "", "a b", "ü", "a:b", "a\n", ("x"):rep(129),
                                ".", ".." })
        do
            assert.same("/upstreams/" .. name,
                        pointer({ upstreams = { [name] = {} } }, true))
        end
        assert.same("/upstreams/~0~1",
                    pointer({ upstreams = { ["~/"] = {} } }, true))
    end)

    it("is an object of upstreams and nothing else", function()
        for _, replace in ipairs({ true, false }) do
            assert.same("", pointer(null, replace))
            assert.same("", pointer(5, replace))
            assert.same("/upstream", pointer({ upstream = {} }, replace))
            assert.same("/upstreams", pointer({ upstreams = null }, replace))
            assert.same("/upstreams/web/peers/10.0.0.5:8080/weight",
                        pointer({ upstreams = { web = { peers = {
                            [key] = { weight = -1 } } } } }, replace))
        end
    end)

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
