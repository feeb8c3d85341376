-- JSON, read and written: any value, a part of the document in its one
-- canonical form, and pointers (RFC 6901). Pure but for ngx.re and pauses.

local cjson = require("cjson.safe").new()
local fields = require("reloadless.table.fields")
local pause = require("reloadless.shared.pause")
local sorted_keys = require("reloadless.shared.sorted_keys")

local concat = table.concat
local find = string.find
local format = string.format
local gsub = string.gsub
local tonumber = tonumber
local type = type

local _M = {}

-- JSON has no NaN, Infinity or hexadecimal; cjson takes them unless told.
cjson.decode_invalid_numbers(false)


--- RFC 6901: one step of a JSON pointer.
function _M.pointer_step(name)
    return "/" .. gsub(gsub(name, "~", "~0"), "/", "~1")
end


--- @return a value as JSON, with "/" as people write it
function _M.encode(value)
    return (gsub(cjson.encode(value), "\\/", "/"))
end


local function encode_value(value)
    local kind = type(value)
    if kind == "number" then
        if value % 1 == 0 then
            return format("%d", value)
        end
        local short = format("%.14g", value)
        return tonumber(short) == value and short or format("%.17g", value)
    elseif kind == "string" and not find(value, '[%c"\\]') then
        -- as most are: nothing to escape
        return '"' .. value .. '"'
    end
    return _M.encode(value)
end


-- Appends an object to out, piece by piece: one concat then makes one text of
-- all, where a text for each part would have to be made and thrown away.
-- @return the new number of pieces
local add_keyed


local function add_fields(out, n, object, list)
    local start = n
    for i = 1, #list do
        local value = object[list[i].name]
        if value ~= nil then
            out[n + 1] = n == start and "{" or ","
            out[n + 2] = list[i].label
            if list[i].keyed then
                out[n + 3] = "{"
                n = add_keyed(out, n + 3, value, list[i].fields) + 1
                out[n] = "}"
            elseif type(value) == "table" then
                n = add_fields(out, n + 2, value, list[i].fields)
            else
                out[n + 3] = encode_value(value)
                n = n + 3
            end
        end
    end
    out[n + 1] = n == start and "{}" or "}"
    return n + 1
end


-- Appends objects by their keys, sorted, without braces around them.
-- @return the new number of pieces
function add_keyed(out, n, objects, list)
    local keys = sorted_keys(objects)
    for i = 1, #keys do
        local key = keys[i]
        out[n + 1] = i == 1 and '"' or ',"'
        out[n + 2] = key
        out[n + 3] = '":'
        n = add_fields(out, n + 3, objects[key], list)
        pause.after(1)
    end
    return n
end


--- @return an upstream's settings as JSON in canonical form
function _M.encode_settings(settings)
    local out = {}
    add_fields(out, 0, settings, fields.upstream)
    return concat(out)
end


--- @return peers as the inside of a JSON object, without its braces, sorted by
-- address, so that equal peers have equal text
function _M.encode_peers(peers)
    local out = {}
    add_keyed(out, 0, peers, fields.peer)
    return concat(out)
end


--- The reverse of encode_peers.
function _M.decode_peers(body)
    return cjson.decode("{" .. body .. "}")
end


-- Outside of strings; possessive, so that long strings cost no stack.
local array = [[("(?:[^"\\]|\\.)*+")(*SKIP)(*FAIL)|\[]]
local token = [["((?:[^"\\]|\\.)*+)"(\s*:)?|[{}]|(\[)]]


-- Where in a JSON text the first array stands.
local function array_pointer(body)
    local path, depth, key = {}, 0, nil
    for m in ngx.re.gmatch(body, token, "jos") do
        local mark = m[0]
        if mark == "{" then
            depth = depth + 1
            path[depth] = key or false
            key = nil
        elseif mark == "}" then
            path[depth] = nil
            depth = depth - 1
        elseif m[3] then
            break
        elseif m[2] then
            key = cjson.decode('"' .. m[1] .. '"')
        end
    end

    local steps = {}
    for i = 2, depth do
        steps[#steps + 1] = _M.pointer_step(path[i])
    end
    if key then
        steps[#steps + 1] = _M.pointer_step(key)
    end
    return concat(steps)
end


--- Reads a JSON text.
-- @return the value
-- @return nil and an error: 400 when it is not JSON, 422 when it holds an
--   array: the document has none, and cjson cannot tell [] from {}
function _M.decode(body)
    local value, err = cjson.decode(body)
    -- cjson takes any bytes for text; "u" makes PCRE look at all of them first
    if value ~= nil and ngx.re.find(body, "[\\x80-\\xff]", "jo") then
        local _, _, wrong = ngx.re.find(body, "", "ju")
        if wrong then
            value, err = nil, "it is not UTF-8"
        end
    end
    if value == nil then
        return nil, { status = 400, detail = "the body is not JSON: " .. err }
    end

    -- the quick look first: IPv6 addresses have theirs behind a quote
    if ngx.re.find(body, [[(?<!")\[]], "jo")
       and ngx.re.find(body, array, "jos")
    then
        return nil, { status = 422, pointer = array_pointer(body),
                      detail = "an array: the document holds objects only" }
    end

    return value
end


return _M
