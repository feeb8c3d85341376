-- The table as a JSON document, for GET /v1/upstreams.

local dict = require("reloadless.table.dict")
local lock = require("reloadless.table.lock")
local pause = require("reloadless.shared.pause")
local reader = require("reloadless.table.read")

local concat = table.concat
local ipairs = ipairs
local sub = string.sub

local _M = {}


-- @return one upstream as JSON, or nil
local function upstream_json(name)
    local read = reader.upstream(name)
    if not read then
        return nil
    end

    local bodies = {}
    for i, id in ipairs(read.ids) do
        bodies[i] = read.bodies[id]
    end
    return sub(read.settings, 1, -2) .. (read.settings ~= "{}" and "," or "")
           .. '"peers":{' .. concat(bodies, ",") .. "}}"
end


-- @return the whole document as JSON
local function document_json()
    local parts = {}
    for _, name in ipairs(dict.names()) do
        parts[#parts + 1] = '"' .. name .. '":' .. upstream_json(name)
        pause.after(10)
    end
    return '{"upstreams":{' .. concat(parts, ",") .. "}}"
end


--- The document, or one upstream of it, as one write has left it.
-- @param name of the upstream, or nil for the whole document
-- @return { json =, version = }
-- @return nil, { status, detail }: 404, 500 or 503
function _M.json(name)
    local read = name and upstream_json or document_json
    return lock.exclusively(function()
        local json = read(name)
        if not json then
            return nil, { status = 404,
                          detail = "there is no upstream " .. name }
        end
        return { json = json, version = dict.version() }
    end)
end


return _M
