-- Peak EWMA on two choices (Finagle's PeakEwma): of two peers drawn by weight,
-- the one whose answer is expected sooner.
--
-- What a peer has shown lately is an average that decays with time: a slower
-- answer counts at once and in full, a faster one bit by bit, and a peer that
-- gets no requests is forgiven.

local clock = require("reloadless.shared.clock")
local sampled = require("reloadless.balance.picker.sampled")

local exp = math.exp
local max = math.max
local now = clock.now

-- seconds after which an answer counts for a third
local memory = 10
-- nginx's clock: quicker answers cannot be told apart
local tick = 0.001
-- seconds that a failure stands for when nothing else is known
local penalty = 1


local _M = sampled(function(peer, weight)
    local latency = peer.latency
    if not latency then
        -- nothing known: as good as any, until requests pile up on it
        return peer.active / weight * tick
    end
    local age = now() - peer.latency_at
    return latency * exp(-age / memory) * (1 + peer.active / weight)
end)


--- Learns from a try on the peer.
-- @param seconds that it took, or nil when nobody knows
-- @param outcome "answered"; "failed", which counts as slow however quick it
--   was; or "left" by the client, which can only show that the peer is slower
--   than thought
function _M.observe(peer, seconds, outcome)
    seconds = max(seconds or 0, tick)
    local time = now()
    local latency = peer.latency
    local kept = 0
    if latency then
        kept = exp((peer.latency_at - time) / memory)
        latency = latency * kept
    end

    if outcome == "failed" then
        seconds = max(seconds, 2 * (latency or penalty))
    elseif outcome == "left" and not (latency and seconds > latency) then
        return
    elseif latency and seconds < latency then
        seconds = latency + seconds * (1 - kept)
    end
    peer.latency, peer.latency_at = seconds, time
end


return _M
