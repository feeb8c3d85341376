-- What a request to the admin API says: its conditions (RFC 9110 13.1) and its
-- body.

local json = require("reloadless.table.json")

local concat = table.concat
local gsub = string.gsub
local io_open = io.open
local ipairs = ipairs
local lower = string.lower
local match = string.match
local ngx = ngx
local pairs = pairs
local sub = string.sub
local tonumber = tonumber

local _M = {}

local conditions = {
    if_match = "If-Match",
    if_none_match = "If-None-Match",
}

-- nginx's own filter looks at these after us: a write that has moved the ETag
-- would leave as 412 although it was made
local filtered = { "If-Match", "If-None-Match", "If-Modified-Since",
                   "If-Unmodified-Since" }


-- Reads "*" or a list of entity tags, whose members may be empty (RFC 9110
-- 8.8.3 and 5.6.1).
-- @return { any = true } or { [tag] = "" or "W/" }; nil when it is neither
local function parse_etags(header)
    if match(header, "^[ \t]*%*[ \t]*$") then
        return { any = true }
    end

    local tags, at = {}, 1
    while at <= #header do
        local weak, tag, after =
            match(header, '^[ \t]*([W/]*)("[!#-~\128-\255]*")[ \t]*()', at)
        after = after or match(header, "^[ \t]*()", at)
        if (tag and weak ~= "" and weak ~= "W/")
           or (after <= #header and sub(header, after, after) ~= ",")
        then
            return nil
        end
        if tag and tags[tag] ~= "" then
            tags[tag] = weak
        end
        at = after + 1
    end
    return tags
end


--- Whether a condition names an ETag.
-- @param tags of read_conditions
-- @param strongly whether a weak tag never matches (RFC 9110 8.8.3.2)
function _M.has_etag(tags, etag, strongly)
    local weak = tags[etag]
    return tags.any or weak == "" or (weak == "W/" and not strongly)
end


--- Reads the conditions, and takes them away from nginx.
-- @return { if_match, if_none_match }: of each, where there is one, the tags as
--   has_etag takes them
-- @return nil and an error { status, detail }: 400
function _M.read_conditions()
    local read = {}
    for field, header in pairs(conditions) do
        local value = ngx.var["http_" .. field]
        read[field] = value and parse_etags(value)
        if value and not read[field] then
            local shown = gsub(value, "[^ -~]", "?")
            return nil, { status = 400, detail = header .. " is '" .. shown
                          .. "': expected * or a list of ETags" }
        end
    end

    for _, header in ipairs(filtered) do
        ngx.req.clear_header(header)
    end
    return read
end


local function is_one_of(types, value)
    for _, known in ipairs(types) do
        if known == value then
            return true
        end
    end
    return false
end


--- Reads the body, which is JSON.
-- @param types an array of the media types that it may have
-- @param most bytes that it may have
-- @return what json.decode gives
-- @return nil and an error { status, detail, pointer }
function _M.read_body(types, most)
    local content_type = lower(match(ngx.var.content_type or "",
                                     "^%s*([^;%s]*)"))
    if not is_one_of(types, content_type) then
        return nil, { status = 415, detail = "Content-Type is '" .. content_type
                      .. "': expected " .. concat(types, " or ") }
    end

    local length = tonumber(ngx.var.http_content_length)
    if not length then
        return nil, { status = 411, detail = "Content-Length is missing" }
    end
    if length > most then
        return nil, { status = 413, detail = "the body has " .. length
                      .. " bytes: expected at most " .. most }
    end

    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if not body then
        local path = ngx.req.get_body_file()
        local file = path and io_open(path, "rb")
        body = file and file:read("*a") or ""
        if file then
            file:close()
        end
    end

    return json.decode(body)
end


return _M
