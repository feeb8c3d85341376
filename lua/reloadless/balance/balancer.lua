-- The request path: which peer gets this request, and what became of it.
--
-- What runs for each request calls functions by upvalues, not as methods of
-- objects: LuaJIT would look for a method, and check where it found it, each
-- time.

local attempt = require("reloadless.balance.attempt")
local base = require("resty.core.base")
local clock = require("reloadless.shared.clock")
local counters = require("reloadless.shared.counters")
local dict = require("reloadless.table.dict")
local fitness = require("reloadless.balance.fitness")
local inflight = require("reloadless.shared.inflight")
local no_peer = require("reloadless.balance.no_peer")
local tiers = require("reloadless.balance.tiers")
local upstream = require("reloadless.balance.upstream")
local balancer = require("ngx.balancer")
local ffi = require("ffi")

-- Also for what ngx.is_subrequest, ngx.status and ngx.req.is_internal call: the
-- way there, by tables and metatables, is most of what they cost.
local C = ffi.C
local cast = ffi.cast
local count_begin = counters.begin
local count_finish = counters.finish
local get_last_failure = balancer.get_last_failure
local get_request = base.get_request
local match = string.match
local math_min = math.min
local md5 = ngx.md5
local ngx = ngx
local now = clock.now
local pairs = pairs
local pick_fit = fitness.pick
local random = math.random
local set_current_peer = balancer.set_current_peer
local set_more_tries = balancer.set_more_tries
local set_timeouts = balancer.set_timeouts
local table_version = dict.version
local tonumber = tonumber
local tostring = tostring
local update = tiers.update
local uintptr_t = ffi.typeof("uintptr_t")

local _M = {}

-- upstreams that this worker has built, by name
local built = {}

-- Requests on their way to a peer, by the address of nginx's request. Unlike
-- ngx.ctx it costs no table for each request and outlives internal redirects.
local states = {}
-- states not in use, and their number
local spare = {}
local spares = 0


local function find_upstream(name)
    local version = table_version()
    local found = built[name]
    if found and found.seen == version then
        return found
    elseif not name then
        return nil
    end

    found = found or upstream.new(name)
    built[name] = found:sync(version, now()) and found or nil
    return built[name]
end


--- Whether the table has a limit for the peer of this id.
function _M.is_limited(id)
    local name, key = match(id, "^([^:]+):(.+)$")
    local found = find_upstream(name)
    local peer = found and found.peers[key]
    return peer ~= nil and peer.max_conns > 0
end


local function request_id()
    -- brackets: LuaJIT compiles no tail call of tonumber
    return (tonumber(cast(uintptr_t, get_request())))
end


local function begin(state, peer)
    state.peer = peer
    if state.counted then
        count_begin(peer)
    elseif peer.probe then
        -- nobody would tell that it has answered: it is believed until it fails
        state.upstream.fitness:answered(peer, now())
    end
    update(state.upstream.fitness.tiers, peer)
end


-- The request leaves its peer, which has answered, failed, or neither.
local function leave_peer(state, outcome, seconds, was_open)
    local peer, found = state.peer, state.upstream
    local judge = found.fitness
    state.peer = false
    if state.held then
        state.held = false
        inflight.release(peer)
        judge:freed(peer, now())
    end
    if found.observe and outcome then
        found.observe(peer, seconds, outcome)
    end
    if state.counted then
        count_finish(peer, outcome == "failed")
        update(judge.tiers, peer)
    elseif outcome == "failed" then
        counters.touch(peer)
    end

    if outcome == "failed" then
        judge:failed(peer, was_open, now())
    elseif outcome == "answered" then
        peer.is_pooled = true
        if peer.failed_at then
            judge:answered(peer, now())
        end
    end
end


-- Ends the last try, as it ended.
local function finish(state, is_over)
    if state.peer then
        leave_peer(state, attempt.last(is_over))
    end
end


local function forget(id, state)
    states[id] = nil
    state.upstream, state.tried, state.hashed = false, false, false
    spares = spares + 1
    spare[spares] = state
end


-- A connection of the peer, if it has a limit.
local function hold(state, peer)
    if peer.max_conns == 0 or not state.counted then
        return true
    end
    state.held = inflight.acquire(peer)
    return state.held
end


local function pick_any(state)
    return pick_fit(state.upstream.fitness, state.tried, state.hashed, now)
end


-- Peers that are full rest; each of them is asked once. When nobody is left,
-- some that have rested are asked again.
local function pick_another(state, peer)
    local judge = state.upstream.fitness
    for _ = 1, 2 do
        while peer do
            if hold(state, peer) then
                return peer
            end
            judge:filled(peer, now())
            peer = pick_any(state)
        end
        peer = judge:reopen(now()) and pick_any(state) or nil
    end
end


-- Without a loop of its own, which LuaJIT would not compile along.
local function pick(state)
    local peer = pick_any(state)
    if peer and hold(state, peer) then
        return peer
    end
    return pick_another(state, peer)
end


-- The peer that the client's cookie names, if that one still serves.
local function named_by_cookie(found)
    local token = found.cookie and ngx.var[found.cookie]
    return token and found:stuck(token), token
end


-- The peer to which the client's cookie holds it, if it has room.
local function stuck(state)
    if not state.upstream.cookie then
        return nil
    end
    local peer, token = named_by_cookie(state.upstream)
    local is_held = peer and hold(state, peer)
    state.token = is_held and token
    state.needs_header = not is_held
    return is_held and peer or nil
end


-- All fields are there from the start: code that LuaJIT has compiled for one
-- state then fits the next. token and needs_header are those of a request whose
-- upstream is sticky, and else what the last one left.
local function empty_state()
    return {
        upstream = false, peer = false, counted = false, held = false,
        token = false, needs_header = false, tried = false, hashed = false,
        left = 0,
    }
end


local function new_state(found)
    local state
    if spares > 0 then
        state = spare[spares]
        spares = spares - 1
    else
        state = empty_state()
    end
    state.upstream = found
    -- a subrequest has no log phase that would end the count, unless nginx.conf
    -- has log_subrequest
    state.counted = C.ngx_http_lua_ffi_is_subrequest(get_request()) ~= 1
    return state
end


local function first_try(id, name)
    local found = find_upstream(name)
    if not found then
        return nil
    end

    local judge = found.fitness
    if judge.has_due then
        judge:tend(now())
    end
    local state = new_state(found)
    if found.key then
        local text = found.key()
        -- as nginx: whoever has no key goes anywhere
        state.hashed = text ~= "" and text or tostring(random())
    end
    local peer = stuck(state) or pick(state)
    if not peer then
        forget(id, state)
        return nil
    end

    states[id] = state
    -- a cookie may name a peer that takes no new traffic
    local most = peer.is_in and found.size or found.size + 1
    local tries = math_min(most, found.max_tries)
    state.left = tries
    if tries > 1 then
        -- the placeholder counts for none, so this is the number of all
        set_more_tries(tries)
    end
    if found.has_timeouts then
        local settings = found.settings
        set_timeouts(settings.connect_timeout, settings.send_timeout,
                     settings.read_timeout)
    end
    return state, peer
end


-- @param how it ended as nginx counts it: "next" after an answer of 403 or 404,
--   else "failed"
local function next_try(state, how)
    local peer = state.peer
    local _, seconds, was_open = attempt.last(false)
    leave_peer(state, how == "next" and "answered" or "failed", seconds,
               was_open)

    local tried = state.tried or {}
    state.tried = tried
    tried[peer] = was_open and "stale" or "dead"
    state.left = state.left - 1

    -- the table may have moved since
    local found = find_upstream(state.upstream.name)
    if not found then
        return nil
    end
    state.upstream = found
    peer = pick(state)
    if not peer and state.left <= 0 then
        -- All tries that we asked for are over. nginx grants another only for
        -- a pooled connection that the peer had closed: that peer is fine.
        local dead = {}
        for other, kind in pairs(tried) do
            dead[other] = kind == "dead" and kind or nil
        end
        state.tried = dead
        peer = pick(state)
    end
    return peer
end


--- Picks the peer of this try: the handler of balancer_by_lua.
-- @param name of the upstream; default $reloadless_upstream
function _M.balance(name)
    local id = request_id()
    local state = states[id]
    local how = state and get_last_failure()
    local peer
    if how then
        peer = next_try(state, how)
    else
        if state then
            -- an internal redirect, or a request that had no log phase
            finish(state, false)
            forget(id, state)
        end
        name = name or ngx.var.reloadless_upstream
        state, peer = first_try(id, name)
    end
    if not peer then
        name = state and state.upstream.name or name
        no_peer.tell(find_upstream(name), name)
        return no_peer.exit(state ~= nil)
    end

    begin(state, peer)
    local ok, err = set_current_peer(peer.host, peer.port)
    if not ok then
        ngx.log(ngx.ERR, "reloadless: peer ", peer.key, ": ", err)
    end
end


--- Answers 503 at once when the upstream has no peer for this request: for
-- access_by_lua.
-- @param name of the upstream; default $reloadless_upstream
function _M.access(name)
    name = name or ngx.var.reloadless_upstream
    local found = find_upstream(name)
    if not found or found:is_empty() and not named_by_cookie(found) then
        no_peer.tell(found, name)
        return ngx.exit(503)
    end
end


--- Holds the client to its peer by a cookie: for header_filter_by_lua, in
-- locations whose upstreams are sticky.
function _M.header()
    local state = states[request_id()]
    local found = state and state.upstream
    if not found or not found.cookie or not state.peer then
        return
    end

    state.needs_header = false
    local token = md5(state.peer.key)
    -- a peer that failed is none to be held to
    if token ~= state.token and attempt.last(true) == "answered" then
        local cookies = ngx.header["Set-Cookie"] or {}
        if type(cookies) == "string" then
            cookies = { cookies }
        end
        cookies[#cookies + 1] = found.new_cookie(token)
        ngx.header["Set-Cookie"] = cookies
    end
end


-- The answer should have had a cookie, and header was not called.
local function miss_header(found)
    if not found.told and attempt.last(true) == "answered" then
        found.told = true
        ngx.log(ngx.ERR, "reloadless: upstream ", found.name, " is sticky, but",
                " this location sets no cookie: it lacks",
                " header_filter_by_lua_block",
                " { require(\"reloadless\").header() }")
    end
end


--- Ends what balance began: for log_by_lua. Requests that reached no peer cost
-- one table look-up.
function _M.log()
    local id = request_id()
    local state = states[id]
    if not state then
        return
    end

    -- error_page may have made any status of a failure
    local peer, request = state.peer, get_request()
    if state.upstream.observe or peer and peer.failed_at
       or C.ngx_http_lua_ffi_get_resp_status(request) >= 499
       or C.ngx_http_lua_ffi_req_is_internal(request) == 1
    then
        finish(state, true)
    elseif peer then
        leave_peer(state, "answered")
    end
    if state.upstream.cookie and state.needs_header then
        miss_header(state.upstream)
    end
    forget(id, state)
end


return _M
