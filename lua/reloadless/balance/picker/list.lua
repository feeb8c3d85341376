-- The pickers, and what each of them must be. A new one is a file beside this
-- one and its name below.
--
-- A picker chooses among peers. It is a module with these functions:
--
--   new()               a picker without peers. An upstream has three of them,
--                       one for each tier, so a peer may be in two at once.
--   set(self, peer, weight)
--                       adds a peer, or gives it another weight: above 0, and a
--                       fraction while the peer is in slow start.
--   remove(self, peer)  takes a peer out; one that is not there is no error.
--   pick(self, tried, key)
--                       the peer for a try, or nil when there is none. tried,
--                       where some were tried before, is the set of those that
--                       must not be picked: among them it may look for no more
--                       than some 20 steps, and give nil when it has found
--                       nobody else; the tiers then find one. key is the text
--                       to hash where balance is "hash". It runs for each
--                       request.
--
-- and, where it wants them:
--
--   update(self, peer)  peer.active has changed: after each pick, and when the
--                       request is over. The peer may be one that is not in.
--   observe(peer, seconds, outcome)
--                       a try on the peer is over. outcome is "answered",
--                       "failed", or "left" when the client did not wait;
--                       seconds until then, or nil when nobody knows. It gets
--                       no picker: what is learnt of a peer stays with the peer
--                       and serves all tiers. It runs for each request, which
--                       without it is cheaper.
--   whole_weights       true when weights are whole numbers: no slow start.
--
-- new gives a table whose methods are set, remove, pick and update. They are
-- called one at a time, by one worker, and may not yield.
--
-- A picker reads of a peer what never changes, and active. It writes only
-- fields of its own, which stand under its name in balance/peer.lua.

local error = error
local format = string.format
local ipairs = ipairs
local pairs = pairs
local require = require
local type = type

local _M = {}

--- The name that each has in the document, under balance, and that its file
-- has.
_M.names = { "round_robin", "least_conn", "ewma", "random", "hash" }

local required = {
    new = "function",
    set = "function",
    remove = "function",
    pick = "function",
}
local optional = {
    update = "function",
    observe = "function",
    whole_weights = "boolean",
}


-- @return what is wrong with a module as a picker, or nil
local function fault_of(module)
    if type(module) ~= "table" then
        return format("is a %s: expected a table of functions", type(module))
    end
    for name in pairs(required) do
        if module[name] == nil then
            return format("has no function %s", name)
        end
    end
    for name, value in pairs(module) do
        local expected = required[name] or optional[name]
        if not expected then
            return format("has %s, which no picker has", name)
        elseif type(value) ~= expected then
            return format("has %s, a %s: expected a %s", name, type(value),
                          expected)
        end
    end
end


--- Loads all pickers.
-- @return their modules by name
-- @raise when one of them lacks a function, or has something that is none of a
--   picker's: nginx then does not start
function _M.load()
    local modules = {}
    for _, name in ipairs(_M.names) do
        local module = require("reloadless.balance.picker." .. name)
        local fault = fault_of(module)
        if fault then
            error("reloadless: picker " .. name .. " " .. fault, 0)
        end
        modules[name] = module
    end
    return modules
end


return _M
