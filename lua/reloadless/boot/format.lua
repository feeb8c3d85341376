-- The format of the snapshot and of the state file: line 1 a JSON header
-- {"format":1,"saved_at":…,"length":…,"crc32":…} about line 2, the document.
-- The agent's reader, agent/snapshot/format.ts, has the same rules: the cases
-- of test/cases/snapshots.json are run through both. Pure but for ngx.re.

local json = require("reloadless.table.json")

local format = string.format
local match = string.match
local sub = string.sub
local tostring = tostring
local type = type

local _M = {}

--- So many bytes a file may have.
_M.most_bytes = 64 * 1024 * 1024

local time = [[\A\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])]]
             .. [[T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z\z]]


local function decode_header(line)
    local header = line and json.decode(line)
    if type(header) ~= "table" or header.format ~= 1 then
        return nil, "its first line is not a header of format 1"
    end
    if type(header.saved_at) ~= "string"
       or not ngx.re.find(header.saved_at, time, "jo")
    then
        return nil, "its saved_at is not a time such as"
                    .. " 2026-01-31T12:00:00.000Z"
    end
    return header
end


--- @return the document that a file holds, or nil and why not
function _M.decode(content)
    local line = match(content, "^([^\n]*)\n")
    local header, err = decode_header(line)
    if not header then
        return nil, err
    end

    local body = sub(content, #line + 2, -2)
    if #body ~= header.length or sub(content, -1) ~= "\n" then
        return nil, "it has " .. #content - #line - 1 .. " bytes behind its"
                    .. " first line: expected " .. tostring(header.length)
                    .. ", as the header says, and a newline"
    end
    if ngx.crc32_long(body) ~= header.crc32 then
        return nil, "its document does not match the header's crc32"
    end

    local value, problem = json.decode(body)
    if value == nil then
        return nil, (problem.pointer or "") .. " " .. problem.detail
    end
    return value
end


--- @param body the document as JSON, in one line
-- @param now in epoch seconds
-- @return the content of a file that holds it
function _M.encode(body, now)
    return format('{"format":1,"saved_at":"%s","length":%d,"crc32":%d}\n%s\n',
                  os.date("!%Y-%m-%dT%H:%M:%SZ", now), #body,
                  ngx.crc32_long(body), body)
end


return _M
