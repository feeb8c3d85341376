-- Requests under way on peers with max_conns, over all workers. Each worker
-- also counts its own share, so that what a killed one held can be given back.

local process = require("reloadless.process")

local find = string.find
local ipairs = ipairs
local sub = string.sub

local _M = {}

local dict, pid


local function add(id, n)
    dict:incr("o:" .. pid .. ":" .. id, n, 0)
    return dict:incr("m:" .. id, n, 0)
end


--- Takes one of the peer's connections.
-- @return false when none is left
function _M.acquire(peer)
    if add(peer.id, 1) <= peer.max_conns then
        return true
    end
    add(peer.id, -1)
    return false
end


--- Gives it back.
function _M.release(peer)
    add(peer.id, -1)
end


-- Gives back what a worker that is gone held.
local function reap(gone)
    local prefix = "o:" .. gone .. ":"
    for _, key in ipairs(dict:get_keys(0)) do
        if find(key, prefix, 1, true) == 1 then
            local held = dict:get(key) or 0
            dict:delete(key)
            if held ~= 0 then
                dict:incr("m:" .. sub(key, #prefix + 1), -held, 0)
            end
        end
    end
end


--- Looks for workers that are gone: once a second, in one worker.
function _M.reap_gone()
    for _ = 1, dict:llen("workers") or 0 do
        local other = dict:lpop("workers")
        if other and process.is_alive(other) then
            dict:rpush("workers", other)
        elseif other then
            reap(other)
        end
    end
end


--- Makes this worker known.
function _M.init_worker(shared)
    dict, pid = shared, ngx.worker.pid()
    -- a pid that had been another worker's
    reap(pid)
    dict:rpush("workers", pid)
end


return _M
