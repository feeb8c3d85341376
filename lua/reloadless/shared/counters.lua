-- What all workers know and may forget: the dict reloadless_counters, which
-- evicts. Mostly what happened to each peer: workers count for themselves and
-- add up once a second, so that a request pays for no shared write.
--
--   r:<peer>, f:<peer>   requests to the peer of this id, and failures
--   births               how many workers have come
--   a:<n>                process id of worker n and, of its peers, those with
--                        requests under way and those that it has ejected
--   other keys           see remember

local process = require("reloadless.shared.process")

local concat = table.concat
local gmatch = string.gmatch
local ipairs = ipairs
local match = string.match
local pairs = pairs

local _M = {}

local flush_seconds = 1

local dict
-- a worker that ends its last requests has no timers any more
local is_ending = false
-- peers with something to report
local touched = {}
-- the key of this worker's report
local report
-- the numbers of workers that may live, and the newest of them that was seen
local living, newest = {}, 0


local function touch(peer)
    if not peer.touched then
        peer.touched = true
        touched[#touched + 1] = peer
    end
end


--- The peer may have been ejected.
_M.touch = touch


local function flush(premature)
    is_ending = is_ending or premature
    local busy, lines = {}, { process.id() }
    for _, peer in ipairs(touched) do
        local id = peer.id
        if peer.requests > 0 then
            dict:incr("r:" .. id, peer.requests, 0)
            peer.requests = 0
        end
        if peer.failures > 0 then
            dict:incr("f:" .. id, peer.failures, 0)
            peer.failures = 0
        end
        peer.touched = peer.active > 0 or peer.ejected == true
        if peer.touched then
            busy[#busy + 1] = peer
            lines[#lines + 1] = id .. " " .. peer.active
                                .. (peer.ejected and " ejected" or "")
        end
    end
    touched = busy

    -- also so that it is never what was used least lately, and evicted
    dict:get("births")
    dict:set(report, concat(lines, "\n"))
end


--- A request was sent to the peer.
function _M.begin(peer)
    peer.requests = peer.requests + 1
    peer.active = peer.active + 1
    touch(peer)
end


--- The request left the peer.
-- @param failed whether the peer is to blame
function _M.finish(peer, failed)
    peer.active = peer.active - 1
    if failed then
        peer.failures = peer.failures + 1
    end
    touch(peer)
    if is_ending then
        flush()
    end
end


--- Remembers something for a while.
-- @param what begins with a word of the caller's, longer than one letter
function _M.remember(what, seconds)
    dict:set(what, true, seconds)
end


--- Whether something is remembered.
function _M.remembers(what)
    return dict:get(what) or false
end


--- Remembers something that is not remembered.
-- @return whether it was not; of several workers one hears so
function _M.is_news(what, seconds)
    return (dict:add(what, true, seconds))
end


-- @return an array of the reports of all workers that live. They are found
-- without a look at all keys, during which no worker could count.
local function reports()
    local births, found = dict:get("births") or 0, {}
    for n = newest + 1, births do
        living[n] = true
    end
    for n in pairs(living) do
        local text = dict:get("a:" .. n)
        if text and process.is_alive(match(text, "^%S+")) then
            found[#found + 1] = text
        elseif text or n <= newest then
            -- gone, and not just about to report for the first time
            dict:delete("a:" .. n)
            living[n] = nil
        end
    end
    newest = births
    return found
end


--- Reads the counters of all peers.
-- @return a function of an upstream's name and a peer's address that gives
--   requests, failures, active, and whether a worker has ejected it
function _M.reader()
    local active, ejected = {}, {}
    for _, lines in ipairs(reports()) do
        for id, count, mark in gmatch(lines, "(%S+) (%d+)([^\n]*)") do
            active[id] = (active[id] or 0) + count
            ejected[id] = ejected[id] or mark ~= ""
        end
    end

    return function(upstream, peer)
        local id = upstream .. ":" .. peer
        return dict:get("r:" .. id) or 0, dict:get("f:" .. id) or 0,
               active[id] or 0, ejected[id] or false
    end
end


--- Finds the dict.
function _M.init()
    dict = ngx.shared.reloadless_counters
    if not dict then
        error("reloadless: nginx.conf lacks lua_shared_dict"
              .. " reloadless_counters")
    end
end


--- Starts the reports of this worker.
function _M.init_worker()
    report = "a:" .. dict:incr("births", 1, 0)
    flush()
    assert(ngx.timer.every(flush_seconds, flush))
end


return _M
