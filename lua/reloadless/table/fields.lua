-- The fields of the document, each with what it may hold: a check takes a value
-- and returns what was expected instead, or nil. The agent's checks,
-- agent/state/field-checks.ts, have the same rules: the values of
-- test/cases/values.txt are run through both. Pure but for whether there is a
-- dict.

local inflight = require("reloadless.shared.inflight")
local pickers = require("reloadless.balance.picker.list")

local concat = table.concat
local find = string.find
local format = string.format
local gsub = string.gsub
local ipairs = ipairs
local tonumber = tonumber
local tostring = tostring
local type = type
local unpack = unpack

local _M = {}


local function integer(low, high)
    return function(value)
        if type(value) ~= "number" or value % 1 ~= 0
           or value < low or value > high
        then
            return format("an integer from %d to %d", low, high)
        end
    end
end


-- Requests at once are counted in a dict of their own.
local function limit(value)
    local expected = integer(0, 65535)(value)
    if not expected and value > 0 and not inflight.has_dict() then
        return "0, since nginx.conf lacks lua_shared_dict reloadless_inflight"
               .. " 1m"
    end
    return expected
end


-- nginx counts time in milliseconds.
local function seconds(high)
    return function(value)
        if type(value) ~= "number" or value < 0 or value > high
           or tonumber(format("%.3f", value)) ~= value
        then
            return format("seconds from 0 to %d with at most 3 decimals", high)
        end
    end
end


local function boolean(value)
    if type(value) ~= "boolean" then
        return "true or false"
    end
end


-- Those of ASCII and, in UTF-8, U+0080 to U+009F.
local function has_control(value)
    return find(value, "%c") or find(value, "\194[\128-\159]")
end


local function text(high)
    return function(value)
        if type(value) ~= "string" or #value < 1 or #value > high
           or has_control(value)
        then
            return format("a string of 1 to %d bytes without control"
                          .. " characters", high)
        end
    end
end


local function one_of(names)
    return function(value)
        for _, name in ipairs(names) do
            if value == name then
                return nil
            end
        end
        return "one of " .. concat(names, ", ")
    end
end


local function cookie_name(value)
    if type(value) ~= "string" or #value > 64
       or not find(value, "^[%w_-]+$")
    then
        return "a cookie name: 1 to 64 of A-Z a-z 0-9 _ -"
    end
end


local function cookie_path(value)
    if type(value) ~= "string" or #value > 255
       or not find(value, "^/[%w%p]*$") or find(value, ";", 1, true)
    then
        return "a path: / and up to 254 characters of ASCII, without spaces"
               .. " and ;"
    end
end


local function cookie_domain(value)
    if type(value) ~= "string" or #value > 253
       or not find(value, "^[%w.-]+$")
    then
        return "a domain: 1 to 253 of A-Z a-z 0-9 . -"
    end
end


-- An object's fields have checks of their own.
local function sticky(value)
    return type(value) ~= "table" and cookie_name(value)
           and "a cookie name: 1 to 64 of A-Z a-z 0-9 _ -, or an object"
           or nil
end


local function variables(value)
    local rest, braced = gsub(tostring(value), "%${[%w_]+}", " ")
    if type(value) ~= "string" or #value > 1024 or has_control(value)
       or braced == 0 and not find(rest, "%$[%w_]") or find(rest, "${", 1, true)
    then
        return "a string with nginx variables, such as $remote_addr"
    end
end


-- @param fields { name, check, fields, keyed } each, in the order in which they
--   are written; fields is a list of those inside where the value may be an
--   object, or of those of each item where it is keyed: an object of objects
-- @return an array of { name =, check =, fields =, keyed =, label = its name as
--   JSON }, and the checks by name
local function list(fields)
    local all = { checks = {} }
    for i, field in ipairs(fields) do
        local name, check = field[1], field[2]
        all[i] = { name = name, check = check, label = '"' .. name .. '":',
                   fields = field[3], keyed = field[4] }
        all.checks[name] = check
    end
    return all
end


local function overrides(value)
    if type(value) ~= "table" then
        return "an object of overrides by address"
    end
end


local peer = {
    { "weight", integer(0, 65535) },
    { "backup", boolean },
    { "drain", boolean },
    { "down", boolean },
    { "id", text(255) },
    { "zone", text(255) },
    { "max_conns", limit },
    { "slow_start", seconds(86400) },
    { "max_fails", integer(0, 65535) },
    { "fail_timeout", seconds(86400) },
}

_M.peer = list(peer)

--- What a person says of a peer: its fields, and these.
_M.override = list({
    -- of 32 bits: milliseconds are refused
    { "expires_at", integer(1, 2 ^ 32 - 1) },
    { "note", text(255) },
    { "by", text(255) },
    unpack(peer),
})

--- Of sticky, where it is an object.
_M.sticky = list({
    { "cookie", cookie_name },
    { "path", cookie_path },
    { "domain", cookie_domain },
    { "max_age", integer(0, 2 ^ 31 - 1) },
    { "secure", boolean },
    { "http_only", boolean },
    { "same_site", one_of({ "strict", "lax", "none" }) },
})

_M.upstream = list({
    { "owner", text(128) },
    { "balance", one_of(pickers.names) },
    { "hash_key", variables },
    { "sticky", sticky, _M.sticky },
    { "max_conns", limit },
    { "slow_start", seconds(86400) },
    { "max_fails", integer(0, 65535) },
    { "fail_timeout", seconds(86400) },
    { "max_tries", integer(1, 100) },
    { "connect_timeout", seconds(86400) },
    { "send_timeout", seconds(86400) },
    { "read_timeout", seconds(86400) },
    { "zone", text(255) },
    { "overrides", overrides, _M.override, true },
})

--- What an agent says of itself.
_M.agent = list({
    { "id", text(64) },
    { "host", text(255) },
    { "pid", integer(1, 2 ^ 31 - 1) },
    { "since", text(64) },
})


--- The check of an upstream's name.
function _M.check_name(name)
    -- clients take . and .. out of a path before they send it (RFC 3986 5.2.4)
    if #name < 1 or #name > 128 or find(name, "[^%w._-]")
       or name == "." or name == ".."
    then
        return "1 to 128 of A-Z a-z 0-9 . _ - but not . or .."
    end
end


return _M
