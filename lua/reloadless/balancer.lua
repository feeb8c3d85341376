-- The request path: which peer gets this request, and what became of it.

local base = require("resty.core.base")
local counters = require("reloadless.counters")
local upstream = require("reloadless.upstream")
local upstreams = require("reloadless.table")
local balancer = require("ngx.balancer")
local ffi = require("ffi")

local cast = ffi.cast
local find = string.find
local get_last_failure = balancer.get_last_failure
local get_request = base.get_request
local ngx = ngx
local pairs = pairs
local set_current_peer = balancer.set_current_peer
local set_more_tries = balancer.set_more_tries
local table_version = upstreams.version
local tonumber = tonumber
local uintptr_t = ffi.typeof("uintptr_t")

local _M = {}

-- upstreams that this worker has built, by name
local built = {}

-- Requests on their way to a peer, by the address of nginx's request. Unlike
-- ngx.ctx it costs no table for each request and outlives internal redirects.
local states = {}
local spare = {}


local function find_upstream(name)
    local version = table_version()
    local found = built[name]
    if found and found.seen == version then
        return found
    end

    found = found or upstream.new(name)
    built[name] = found:sync(version) and found or nil
    return built[name]
end


local function request_id()
    return tonumber(cast(uintptr_t, get_request()))
end


local function forget(id, state)
    states[id] = nil
    state.peer, state.upstream, state.tried = nil, nil, nil
    spare[#spare + 1] = state
end


local function leave_peer(state, failed)
    -- a subrequest has no log phase that would end the count
    if state.peer and state.counted then
        counters.finish(state.peer, failed)
    end
    state.peer = nil
end


local function first_try(id, name)
    local found = find_upstream(name)
    local peer = found and found:pick()
    if not peer then
        -- nginx then finds the placeholder "down" and answers 502
        ngx.log(ngx.WARN, "reloadless: no peer in upstream ", name)
        return nil
    end

    local state = spare[#spare]
    if state then
        spare[#spare] = nil
    else
        state = {}
    end
    state.upstream = found
    state.counted = not ngx.is_subrequest
    state.left = found.size
    states[id] = state
    if found.size > 1 then
        -- the placeholder counts for no try, so this is the number of all
        set_more_tries(found.size)
    end
    return state, peer
end


-- Whether the try that failed had a connection, maybe one from the pool that
-- the peer had closed.
local function had_connection(code)
    -- the try that begins stands last, and is nothing yet
    return code == 502 and not find(ngx.var.upstream_connect_time, "%- : $")
end


local function next_try(state, code)
    local tried = state.tried or {}
    state.tried = tried
    tried[state.peer] = had_connection(code) and "connected" or "dead"
    state.left = state.left - 1
    leave_peer(state, true)

    -- the table may have moved since
    local found = find_upstream(state.upstream.name)
    local peer = found and found:pick(tried)
    if found and not peer and state.left <= 0 then
        -- All tries that we asked for are over. nginx grants another only for
        -- a pooled connection that the peer had closed: that peer is fine.
        for other, how in pairs(tried) do
            if how == "connected" then
                tried[other] = nil
            end
        end
        peer = found:pick(tried)
    end
    return peer
end


-- Whether the last try failed as nginx means it: no answer from the peer.
-- @param after pattern of what the variables hold after that try
local function has_failed(after)
    local status = ngx.var.upstream_status
    return status ~= nil and find(status, "50[24]" .. after) ~= nil
        and find(ngx.var.upstream_header_time, "%-" .. after) ~= nil
end


--- Picks the peer of this try: the handler of balancer_by_lua.
-- @param name of the upstream; default $reloadless_upstream
function _M.balance(name)
    local id = request_id()
    local state = states[id]
    local failure, code, peer
    if state then
        failure, code = get_last_failure()
    end
    if failure then
        peer = next_try(state, code)
    else
        if state then
            -- an internal redirect, or a request that had no log phase
            leave_peer(state, has_failed(" : [ :-]*$"))
            forget(id, state)
        end
        state, peer = first_try(id, name or ngx.var.reloadless_upstream)
    end
    if not peer then
        return
    end

    state.peer = peer
    if state.counted then
        counters.begin(peer)
    end
    local ok, err = set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "reloadless: peer ", peer.key, ": ", err)
    end
end


--- Answers 503 at once when the upstream has no peer: for access_by_lua.
-- @param name of the upstream; default $reloadless_upstream
function _M.access(name)
    local found = find_upstream(name or ngx.var.reloadless_upstream)
    if not found or found:is_empty() then
        return ngx.exit(503)
    end
end


--- Ends what balance began: for log_by_lua. Requests that reached no peer cost
-- one table look-up.
function _M.log()
    local id = request_id()
    local state = states[id]
    if state then
        -- error_page may have made any status of it
        local maybe = ngx.status >= 500 or ngx.req.is_internal()
        leave_peer(state, maybe and has_failed("$"))
        forget(id, state)
    end
end


return _M
