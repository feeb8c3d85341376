-- One upstream of the table as it is read.

local dict = require("reloadless.table.dict")
local heads = require("reloadless.table.head")

local ipairs = ipairs
local tostring = tostring

local _M = {}


--- The current head of an upstream.
-- @return the head as head.encode takes it, with its version; nil when there is
--   no such upstream
function _M.head(name)
    -- a writer may drop the head between the two reads: then there is a newer
    for _ = 1, 100 do
        local version = dict.upstream_version(name)
        if not version then
            return nil
        end

        local text = dict.get_text(dict.head_key(name, version))
        if text then
            local head = heads.decode(text)
            head.version = version
            return head
        end
    end
end


--- The bodies of an upstream's chunks that are not those the caller has.
-- @param name of the upstream
-- @param members a table whose keys are the ids of the chunks that the caller
--   has, or nil
-- @return { version, settings, peers, ids, bodies = { texts by id } }: ids are
--   those of all chunks, in the order of addresses; nil when there is no such
--   upstream
function _M.upstream(name, members)
    for _ = 1, 100 do
        local head = _M.head(name)
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
                bodies[id] = dict.get_text(dict.chunk_key(name, id))
                whole = whole and bodies[id] ~= nil
            end
        end
        if whole then
            head.bodies = bodies
            return head
        end
    end
end


return _M
