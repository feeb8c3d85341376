-- Lets a spec speak of peers by name or number: a picker knows them as tables.

local new_peer = require("test.lua.peer")

local pairs = pairs
local rawget = rawget


--- @param picker of picker.*
-- @return the same with names for peers; peers holds the tables by name, and
--   real the picker itself
return function(picker)
    local peers = setmetatable({}, { __index = function(self, name)
        self[name] = new_peer(tostring(name), { name = name })
        return rawget(self, name)
    end })

    return {
        real = picker,
        peers = peers,
        set = function(_, name, weight)
            picker:set(peers[name], weight)
        end,
        remove = function(_, name)
            picker:remove(peers[name])
        end,
        pick = function(_, tried, key)
            local set = tried and {}
            for name in pairs(tried or {}) do
                set[peers[name]] = true
            end
            local peer = picker:pick(set, key)
            return peer and peer.name
        end,
    }
end
