-- Which peers of an upstream may be picked now, and with what weight: ejection
-- after failures, slow start, and peers with no connection left. Time is given
-- by the caller, in seconds of a clock that is never set back.
--
-- max_fails and fail_timeout are nginx's (ngx_http_upstream_module, server):
-- max_fails failures within fail_timeout eject a peer for fail_timeout; then
-- one request tries it, and only its success brings the peer back.

local heap = require("reloadless.structure.heap")
local tiers = require("reloadless.balance.tiers")

local max = math.max
local pairs = pairs
local pick = tiers.pick
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- steps in which slow start raises a weight
local ramp_steps = 20
-- seconds after which a full peer is asked again, since another worker may
-- have ended a request
local full_seconds = 0.05
-- what one request does at most for peers whose time has come
local work_per_pick = 8


--- @return a judge of no peers; use settles it
function _M.new()
    return setmetatable({
        -- peers by the time when something is due, and those of them that are
        -- full and no more than that
        agenda = heap.new("due_place"),
        has_due = false,        -- whether the agenda has any
        full = heap.new("full_place"),
        members = {},           -- set of peers
        ejected = {},           -- set of peers
    }, mt)
end


local function weight_of(peer, now)
    if not peer.ramp_from then
        return peer.weight
    end

    local seconds = now - peer.ramp_from
    if seconds >= peer.slow_start then
        peer.ramp_from = nil
        return peer.weight
    end
    return peer.weight * max(seconds / peer.slow_start, 1 / ramp_steps)
end


-- Puts the peer where its state wants it, and notes when that ends.
local function settle(self, peer, now)
    local due
    if peer.ejected or peer.full then
        self.tiers:rest(peer)
        due = peer.until_time
    else
        self.tiers:put(peer, weight_of(peer, now))
        due = peer.ramp_from and now + peer.slow_start / ramp_steps
    end

    if due then
        self.agenda:set(peer, due)
    else
        self.agenda:remove(peer)
    end
    self.has_due = self.agenda.size > 0
    if peer.full and not peer.ejected then
        self.full:set(peer, due)
    else
        self.full:remove(peer)
    end
end


local function start_slowly(self, peer, now)
    if self.ramps and peer.slow_start > 0 then
        peer.ramp_from = now
    end
end


--- Takes over how the upstream balances.
-- @param picker a module of picker/list
-- @param zone the preferred one, or nil
function _M:use(picker, zone, now)
    if self.picker == picker and self.zone == zone then
        return
    end

    self.picker, self.zone = picker, zone
    self.ramps = not picker.whole_weights
    self.tiers = tiers.new(picker, zone)
    for peer in pairs(self.members) do
        settle(self, peer, now)
    end
end


--- A peer may be picked from now on.
-- @param is_late whether the upstream served before the peer came
function _M:join(peer, is_late, now)
    self.members[peer] = true
    if is_late then
        start_slowly(self, peer, now)
    end
    settle(self, peer, now)
end


--- A member's weight or its limit has changed.
function _M:reweigh(peer, now)
    peer.full = nil
    settle(self, peer, now)
end


--- A peer is not picked any more. What it has learnt stays with it.
function _M:leave(peer)
    self.members[peer] = nil
    self.ejected[peer] = nil
    peer.ejected, peer.probe, peer.full, peer.ramp_from = nil, nil, nil, nil
    self.agenda:remove(peer)
    self.has_due = self.agenda.size > 0
    self.full:remove(peer)
    self.tiers:drop(peer)
end


local function eject(self, peer, now)
    peer.ejected, peer.probe = true, nil
    peer.until_time = now + peer.fail_timeout
    self.ejected[peer] = true
    settle(self, peer, now)
end


local function restore(self, peer, now)
    peer.ejected, peer.probe, peer.fails = nil, nil, 0
    self.ejected[peer] = nil
    settle(self, peer, now)
end


--- A try on the peer has failed.
-- @param was_open whether the connection may have been open before: where the
--   peer has answered since, it may only have closed it while it was idle,
--   which is forgiven once in fail_timeout
function _M:failed(peer, was_open, now)
    local was_pooled = was_open and peer.is_pooled
    peer.is_pooled = false
    if peer.max_fails == 0 or not self.members[peer] then
        return
    end
    if was_pooled
       and now - (peer.spared_at or -1 / 0) > peer.fail_timeout
    then
        peer.spared_at = now
        return
    end

    if not peer.ejected
       and now - (peer.failed_at or now) > peer.fail_timeout
    then
        peer.fails = 0
    end
    peer.fails = peer.fails + 1
    peer.failed_at = now
    if peer.fails >= peer.max_fails then
        eject(self, peer, now)
    end
end


--- The peer has answered.
function _M:answered(peer, now)
    if peer.fails == 0 then
        peer.failed_at = nil
        return
    end

    if peer.probe then
        start_slowly(self, peer, now)
        restore(self, peer, now)
    elseif not peer.ejected and now - peer.failed_at > peer.fail_timeout then
        peer.fails = 0
    end
end


--- The peer has no connection left for this request.
function _M:filled(peer, now)
    if self.members[peer] then
        peer.full = true
        peer.until_time = now + full_seconds
        settle(self, peer, now)
    end
end


--- A request has left the peer.
function _M:freed(peer, now)
    if peer.full then
        peer.full = nil
        settle(self, peer, now)
    end
end


-- What was due for the peer is done.
local function wake(self, peer, now)
    peer.full = nil
    if peer.ejected then
        -- the next request is its probe
        peer.ejected, peer.probe = nil, true
        self.ejected[peer] = nil
    end
    settle(self, peer, now)
end


--- Does what is due.
function _M:tend(now)
    for _ = 1, work_per_pick do
        local peer, due = self.agenda:top()
        if not peer or due > now then
            return
        end
        wake(self, peer, now)
    end
end


--- Lets some full peers be asked before their time, none twice at one time.
-- @return whether there were any
function _M:reopen(now)
    local were = false
    for _ = 1, work_per_pick do
        local peer, due = self.full:top()
        if not peer or due >= now + full_seconds then
            break
        end
        wake(self, peer, now)
        were = true
    end
    return were
end


--- @param tried set of peers that must not be picked, or nil
-- @param key what a hash picker hashes
-- @param clock function that gives the time now; asked in rare cases only
-- @return a peer, or nil when none is left. When no peer is fit, those that
--   were ejected serve: never is the whole upstream ejected.
function _M:pick(tried, key, clock)
    local peer = pick(self.tiers, tried, key)
    if peer and not peer.probe then
        return peer
    end

    local now = clock()
    if not peer then
        for ejected in pairs(self.ejected) do
            restore(self, ejected, now)
        end
        peer = pick(self.tiers, tried, key)
    end
    if peer and peer.probe then
        -- until this request is over, no other tries it
        peer.ejected, self.ejected[peer] = true, true
        peer.until_time = now + peer.fail_timeout
        settle(self, peer, now)
    end
    return peer
end


return _M
