-- The table as a JSON document, for GET /v1/upstreams, and of it what the state
-- file keeps.

local dict = require("reloadless.table.dict")
local json = require("reloadless.table.json")
local lock = require("reloadless.table.lock")
local pause = require("reloadless.shared.pause")
local reader = require("reloadless.table.read")

local concat = table.concat
local ipairs = ipairs
local next = next
local sub = string.sub

local _M = {}


-- @return an upstream's JSON as an array of pieces, with its version
local function pieces_of(name)
    local read = reader.upstream(name)
    if not read then
        return nil
    end

    local pieces = {
        version = read.version,
        sub(read.settings, 1, -2) .. (read.settings ~= "{}" and "," or "")
        .. '"peers":{',
    }
    for i, id in ipairs(read.ids) do
        pieces[#pieces + 1] = (i > 1 and "," or "") .. read.bodies[id]
    end
    pieces[#pieces + 1] = "}}"
    return pieces
end


-- Reads what is not read yet, or has changed since.
-- @param wanted names of upstreams; nil for all
-- @param read pieces by name
-- @return the names of those that there are, and the table's version
local function catch_up(wanted, read)
    local names = {}
    for _, name in ipairs(wanted or dict.names()) do
        local has = read[name]
        if not has or has.version ~= dict.upstream_version(name) then
            read[name] = pieces_of(name)
        end
        if read[name] then
            names[#names + 1] = name
        end
        pause.after(read[name] == has and 0.5 or 10)
    end
    return { names = names, version = dict.version() }
end


local function joined(names, read)
    local all = { '{"upstreams":{' }
    for i, name in ipairs(names) do
        all[#all + 1] = (i > 1 and ',"' or '"') .. name .. '":'
        for _, piece in ipairs(read[name]) do
            all[#all + 1] = piece
        end
        pause.after(1)
    end
    all[#all + 1] = "}}"
    return all
end


--- The document, or one upstream of it, as one write has left it. Most of it
-- is read while others write; then, while nobody does, what has changed since.
-- @param name of the upstream, or nil for the whole document
-- @return { pieces = the JSON as an array of texts, version = }
-- @return nil, { status, detail }: 404, 500 or 503
function _M.json(name)
    local wanted, read = name and { name }, {}
    catch_up(wanted, read)
    local found, err = lock.exclusively(catch_up, wanted, read)
    if not found then
        return nil, err
    elseif name and not found.names[1] then
        return nil, { status = 404, detail = "there is no upstream " .. name }
    end
    return {
        pieces = name and read[name] or joined(found.names, read),
        version = found.version,
    }
end


-- @return what of an upstream people have said, as JSON, or nil for nothing
local function said_of(name)
    local head = reader.head(name)
    local settings = head and json.decode(head.settings)
    if not settings then
        return nil
    end
    local overrides = settings.overrides
    settings.overrides = nil
    if settings.owner or overrides and head.peers == 0 and not next(settings)
    then
        return overrides and json.encode_settings({ overrides = overrides })
    end
    local pieces = pieces_of(name)
    return pieces and concat(pieces)
end


--- What people have said: upstreams made by hand as they are, and of others
-- their overrides alone.
-- @return a document as JSON
function _M.by_hand()
    local all = {}
    for _, name in ipairs(dict.names()) do
        local text = said_of(name)
        if text then
            all[#all + 1] = '"' .. name .. '":' .. text
        end
        pause.after(text and 10 or 1)
    end
    return '{"upstreams":{' .. concat(all, ",") .. "}}"
end


return _M
