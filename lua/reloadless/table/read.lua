-- The upstream table as it is read: one upstream, or facts about the whole.

local layout = require("reloadless.table.keys")

local find = string.find
local format = string.format
local ipairs = ipairs
local sort = table.sort
local sub = string.sub
local tostring = tostring

local _M = {}

local sources = { "empty", "snapshot", "admin" }

local dict = ngx.shared.reloadless
local get = dict and dict.get


--- The table's version: what each request compares.
function _M.version()
    return get(dict, "version")
end


--- The version of one upstream, or nil when there is none.
function _M.upstream_version(name)
    local version = dict:get("u:" .. name)
    return version ~= 0 and version or nil
end


--- The bodies of an upstream's chunks that are not those the caller has.
-- @param name of the upstream
-- @param members a table whose keys are the ids of the chunks that the caller
--   has, or nil
-- @return { version, settings, peers, ids, bodies = { texts by id } }: ids are
--   those of all chunks, in the order of addresses; nil when there is no such
--   upstream
function _M.read(name, members)
    for _ = 1, 100 do
        local head = layout.read_head(name)
        if not head then
            return nil
        end
        if not head.ids then
            local id = tostring(head.version)
            head.ids, head.bodies = { id }, { [id] = head.body }
            return head
        end

        local bodies, whole = {}, true
        for _, id in ipairs(head.ids) do
            if not (members and members[id]) then
                bodies[id] = layout.get_text(layout.chunk_key(name, id))
                whole = whole and bodies[id] ~= nil
            end
        end
        if whole then
            head.bodies = bodies
            return head
        end
    end
end


--- @return the names of all upstreams, sorted
function _M.names()
    local names = {}
    for _, key in ipairs(dict:get_keys(0)) do
        if find(key, "u:", 1, true) == 1 and dict:get(key) ~= 0 then
            names[#names + 1] = sub(key, 3)
        end
    end
    sort(names)
    return names
end


--- Whose table it is: a random id, made with the dict.
function _M.instance()
    return dict:get("instance")
end


--- The table's ETag for a version of it.
function _M.etag(version)
    return format('"%s.%d"', _M.instance(), version)
end


--- Facts about the table for the status page.
function _M.status()
    return {
        instance = _M.instance(),
        version = dict:get("version"),
        source = sources[dict:get("source")],
        updated_at = dict:get("updated_at"),
        capacity = dict:capacity(),
        free_space = dict:free_space(),
    }
end


--- Makes the first keys when the dict is new, or of another layout: then all
-- that was there is gone.
-- @return true when the table has never been written
-- @raise when there is no dict
function _M.init()
    if not dict then
        error("reloadless: nginx.conf lacks lua_shared_dict reloadless")
    end

    local found = dict:get("layout")
    if found ~= layout.number then
        if dict:get("version") then
            ngx.log(ngx.WARN, "reloadless: the shared dict is of layout ",
                    found or "0", " and this Lua of ", layout.number,
                    ": the table starts anew")
        end
        dict:flush_all()
        dict:flush_expired()
        local file = assert(io.open("/dev/urandom", "rb"))
        local id = file:read(8):gsub(".", function(char)
            return format("%02x", char:byte())
        end)
        file:close()
        dict:set("instance", id)
        dict:set("source", 1)
        dict:set("updated_at", ngx.time())
        dict:set("version", 0)
        dict:set("layout", layout.number)
    end

    return dict:get("version") == 0
end


return _M
