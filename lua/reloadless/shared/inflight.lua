-- Requests under way on peers with max_conns, over all workers. Each worker
-- also counts its own share, so that what a killed one held can be given back.
-- The dict reloadless_inflight:
--
--   m:<peer>      requests under way on the peer of this id
--   o:<n>:<peer>  those of them that are worker n's
--   births        how many workers have come
--   w:<n>         process id of worker n
--
-- Nothing here evicts: see docs/discoveries/shared-dict-incr.md. Where a peer's
-- count finds no room, the peer takes no request: a limit always holds. Where a
-- worker's share finds none, only what it holds when it is killed stays taken.

local complaint = require("reloadless.shared.complaint")
local process = require("reloadless.shared.process")
local table_dict = require("reloadless.table.dict")

local find = string.find
local ipairs = ipairs
local match = string.match
local pairs = pairs
local sub = string.sub

local _M = {}

local dict = ngx.shared.reloadless_inflight

local complain = complaint.every(60)
local is_full = "lua_shared_dict reloadless_inflight is full: enlarge it; peers"
                .. " whose max_conns finds no room take no request"

-- where this worker's share is; nil until it is known as a worker
local share
-- worker 0: the numbers of workers that may live, and the newest of them
local living, newest = {}, 0
-- worker 0: the table's version whose peers that are gone are forgotten, and
-- the peers that were gone at the last look
local swept, gone = nil, {}


-- One more. The key may be there already, or another worker may just make it.
local function count(key)
    return dict:incr(key, 1) or dict:safe_add(key, 1) and 1
           or dict:incr(key, 1)
end


-- Fewer. A worker counts its share first and last: one that is killed in
-- between has a share of what the peer's count lacks. That is too low once the
-- share is given back, and falls below 0 when nothing is under way.
local function lower(id, n)
    local left = dict:incr("m:" .. id, -n)
    if left and left < 0 then
        dict:incr("m:" .. id, -left)
    end
end


--- Whether there is the dict.
function _M.has_dict()
    return dict ~= nil
end


--- Takes one of the peer's connections.
-- @return false when none is left
function _M.acquire(peer)
    if not dict then
        complain("peers with max_conns take no request: nginx.conf lacks"
                 .. " lua_shared_dict reloadless_inflight 1m")
        return false
    end

    local id = peer.id
    local is_shared = share and count(share .. id)
    local all = count("m:" .. id)
    if not all or all > peer.max_conns then
        if all then
            lower(id, 1)
        else
            complain(is_full)
        end
        if is_shared then
            dict:incr(share .. id, -1)
        end
        return false
    end

    if not is_shared then
        complain(is_full)
    end
    return true
end


--- Gives it back.
function _M.release(peer)
    lower(peer.id, 1)
    if share then
        dict:incr(share .. peer.id, -1)
    end
end


-- Gives back what a worker that is gone held.
local function reap(n)
    local prefix = "o:" .. n .. ":"
    for _, key in ipairs(dict:get_keys(0)) do
        local held = find(key, prefix, 1, true) == 1 and dict:get(key)
        -- not 0: a worker of another generation was quicker
        if held and dict:incr(key, -held) == 0 then
            dict:delete(key)
            lower(sub(key, #prefix + 1), held)
        end
    end
    dict:delete("w:" .. n)
end


local function reap_gone()
    local births = dict:get("births")
    for n = newest + 1, births do
        living[n] = true
    end
    for n in pairs(living) do
        local id = dict:get("w:" .. n)
        if id and not process.is_alive(id) then
            reap(n)
            living[n] = nil
        elseif not id and n <= newest then
            -- gone long ago, and not just about to make itself known
            living[n] = nil
        end
    end
    newest = births
end


-- Forgets the counts of peers that are gone. A worker may not have seen yet
-- that they are: so only those that were gone at the last look, too.
local function sweep(is_limited)
    local version = table_dict.version()
    if version == swept then
        return
    end

    local still_gone, again = {}, false
    for _, key in ipairs(dict:get_keys(0)) do
        local id = match(key, "^m:(.+)$") or match(key, "^o:%d+:(.+)$")
        if id and not is_limited(id) then
            still_gone[id] = true
            if dict:get(key) == 0 then
                again = again or not gone[id]
                if gone[id] then
                    dict:delete(key)
                end
            end
        end
    end
    gone = still_gone
    swept = not again and version
end


local function make_known()
    local n = dict:incr("births", 1)
    if dict:safe_add("w:" .. n, process.id()) then
        share = "o:" .. n .. ":"
    end
end


--- Prepares the dict, if there is one.
function _M.init()
    if dict then
        dict:safe_add("births", 0)
    end
end


--- Makes this worker known.
-- @param is_limited function of a peer's id: whether it has a limit
function _M.init_worker(is_limited)
    if not dict then
        return
    end

    make_known()
    assert(ngx.timer.every(1, function()
        if not share then
            make_known()
        end
        if ngx.worker.id() == 0 then
            reap_gone()
            sweep(is_limited)
        end
    end))
end


return _M
