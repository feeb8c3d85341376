-- A request for which there is no peer: what becomes of it, and what nginx's
-- error log says.

local complaint = require("reloadless.shared.complaint")
local ffi = require("ffi")

local exit = ngx.exit
local gsub = string.gsub
local pcall = pcall
local sub = string.sub

local _M = {}

ffi.cdef("extern uintptr_t ngx_is_privileged_agent[1]")

-- What ngx.exit takes while nginx asks for a peer. NGX_BUSY is "no live
-- upstreams", for which nginx answers 502; OpenResty's nginx takes a status,
-- too: see docs/discoveries/no-peer.md
local busy = -3
local none = pcall(function()
    return ffi.C.ngx_is_privileged_agent
end) and 503 or busy

local complain = complaint.every(1)


--- Says that an upstream has no peer, or that there is no such upstream: each
-- at most once a second.
-- @param found the upstream, or nil
-- @param name that was asked for; it may come from a client
function _M.tell(found, name)
    if not found then
        name = gsub(sub(name or "", 1, 128), "[^%w._-]", "?")
        complain("there is no upstream \"", name, "\" in the table")
    elseif found:is_empty() then
        found.complain("upstream ", found.name, " has no peer")
    else
        found.complain("upstream ", found.name, " has no peer left for a",
                       " request: each was tried, or is at its max_conns")
    end
end


--- Ends the request: for balancer_by_lua.
-- @param was_sent whether it was sent to a peer before
function _M.exit(was_sent)
    exit(was_sent and busy or none)
end


return _M
