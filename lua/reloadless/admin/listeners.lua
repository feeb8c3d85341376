-- Where the admin API listens: addresses that may never become a peer, since
-- what is proxied there asks the admin API. The token is the wall; this keeps
-- such a peer from taking traffic that it can only refuse.

local address = require("reloadless.table.address")
local counters = require("reloadless.shared.counters")

local concat = table.concat
local find = string.find
local ipairs = ipairs
local tostring = tostring

local _M = {}

-- A listener that nobody has used for so long may be gone from nginx.conf.
local memory_seconds = 600

local configured = {}


-- What reaches this machine alone is one address, however it is written.
local function key(bytes, port)
    local host = address.is_local(bytes) and "local" or concat(bytes, ".")
    return "admin:" .. host .. ":" .. port
end


--- Remembers that a request to the admin API came in here.
-- @param server_addr, server_port as nginx has them
function _M.note(server_addr, server_port)
    local bytes = address.parse_ip(server_addr)
    if bytes then
        -- one that is forgotten is known again with its next request
        counters.remember(key(bytes, server_port), memory_seconds)
    end
end


--- @param peer as address.parse gives it
-- @return whether the admin API is known to listen there
function _M.has(peer)
    local at = key(peer.bytes, peer.port)
    return configured[at] or counters.remembers(at)
end


--- @param list of the addresses that nginx.conf has; those of unix sockets are
--   none of a peer
-- @raise when one is not an address
function _M.init(list)
    for _, text in ipairs(list) do
        if not find(tostring(text), "^unix:") then
            local parsed, expected = address.parse(tostring(text))
            if not parsed then
                error("reloadless: init option admin_listen: " .. tostring(text)
                      .. ": expected " .. expected, 3)
            end
            configured[key(parsed.bytes, parsed.port)] = true
        end
    end
end


return _M
