-- Proves that the table takes and refuses what the agent does, whole, as a
-- merge patch and in a snapshot, and that a refusal points at what is wrong
-- (RFC 6901).

local document = require("reloadless.table.document")
local fields = require("reloadless.table.fields")
local json = require("reloadless.table.json")
-- json.decode needs nginx where a text holds [ or more than ASCII
local cjson = require("cjson.safe").new()

local web = "^/upstreams/web/([%w_]+)$"
local peer = "^/upstreams/web/peers/10%.0%.0%.5:80/([%w_]+)$"

-- By verdict and place: true.
local seen = { good = {}, bad = {}, unread = {} }


local function refuse_none()
    return nil
end


-- @return the document as text, and the pointer to the value
local function wrap(at, value)
    local path, is_key = at:gsub("/%*$", "")
    local pointer = path
    if is_key == 1 then
        path, value = path, "{" .. value .. ":{}}"
        pointer = path .. json.pointer_step(cjson.decode(value:sub(2, -5)))
    end
    local before = path:gsub("/([^/]*)", '{"%1":')
    return before .. value .. ("}"):rep(select(2, path:gsub("/", ""))), pointer
end


-- Whole, as a write checks it.
local function check(body)
    local jobs, err = document.check_all(body, true, refuse_none)
    for _, job in ipairs(jobs or {}) do
        err = err or document.check_settings(job.value, job.pointer)
    end
    return err
end


local prove = {}


function prove.good(text)
    assert.is_nil(check(assert(cjson.decode(text))))
    assert(document.check_all(cjson.decode(text), false, refuse_none))
    local jobs, left_out = document.sift(cjson.decode(text), refuse_none)
    assert(jobs, left_out.detail)
    assert.same({}, left_out)
end


function prove.bad(text, pointer, value)
    local err = check(cjson.decode(text))
    assert(err, "taken")
    assert.same(422, err.status)
    assert.same(pointer, err.pointer)

    local jobs, left_out = document.sift(cjson.decode(text), refuse_none)
    if jobs then
        assert.same(1, #left_out)
        left_out = left_out[1]
    end
    assert.same(pointer, left_out.pointer)

    -- a patch may hold null, and leave out what is there
    if not text:find("null", 1, true) and not pointer:find("hash_key$")
       and not (pointer:find("/cookie$") and not text:find('"cookie"'))
       and value ~= "{}"
    then
        jobs, err = document.check_all(cjson.decode(text), false, refuse_none)
        assert.is_nil(jobs)
        assert.same(pointer, err.pointer)
    end
end


-- What cjson takes all the same, the arrays, is proven in
-- test/integration/values.test.ts.
function prove.unread(text)
    if cjson.decode(text) == nil then
        assert.same(400, select(2, json.decode(text)).status)
    end
end


cjson.decode_invalid_numbers(false)
local places
for line in io.lines("test/cases/values.txt") do
    local verdict, rest = line:match("^(%a+) ?(.*)$")
    if verdict == "at" then
        places = {}
        for place in (rest .. " "):gmatch("(.-) ") do
            places[#places + 1] = place
        end
    elseif verdict then
        local below, value = rest:match("^(/%S*) (.*)$")
        value = (value or rest):gsub("<(.-)%*(%d+)>", string.rep)
        for _, at in ipairs(places) do
            local text, pointer = wrap(at, value)
            seen[verdict][at] = true
            it(verdict .. " " .. at .. " " .. line, function()
                prove[verdict](text, pointer .. (below or ""), value)
            end)
        end
    end
end


describe("each field has values that are", function()
    local function names(list, more)
        for _, field in ipairs(list) do
            more[field.name] = true
        end
        return more
    end
    local function matches(places_seen, pattern)
        local found = {}
        for at in pairs(places_seen) do
            local name = at:match(pattern)
            if name then
                found[name] = true
            end
        end
        return found
    end

    for verdict, places_seen in pairs(seen) do
        it(verdict, function()
            assert.same(names(fields.upstream, { peers = true }),
                        matches(places_seen, web))
            assert.same(names(fields.peer, {}), matches(places_seen, peer))
        end)
    end
end)
