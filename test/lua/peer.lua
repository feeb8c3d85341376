-- A peer for specs: the record that all share, which here raises where a field
-- is read or written that it does not have.

local peers = require("reloadless.balance.peer")


--- @param key what the spec calls it
-- @param fields of its own, and what else the spec keeps in it
return function(key, fields)
    local peer = peers.new("web", "10.0.0.1:80", { mean = false })
    peer.key = key
    for name, value in pairs(fields or {}) do
        peer[name] = value
    end

    local known = {}
    for name in pairs(peer) do
        known[name] = true
    end
    -- asked only about what is nil
    return setmetatable(peer, {
        __index = function(_, name)
            assert(known[name], "a peer has no field " .. tostring(name))
        end,
        __newindex = function(self, name, value)
            assert(known[name], "a peer has no field " .. tostring(name))
            rawset(self, name, value)
        end,
    })
end
