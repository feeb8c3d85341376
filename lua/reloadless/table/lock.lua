-- One write at a time over all workers; what one that ended halfway has left is
-- mended before the next.

local clock = require("reloadless.shared.clock")
local dict = require("reloadless.table.dict")
local process = require("reloadless.shared.process")
local reader = require("reloadless.table.read")

local ipairs = ipairs
local pcall = pcall

local _M = {}

local lock_seconds = 5


-- A write that ended halfway may have left some upstreams new under the old
-- version, or staged keys that nothing names.
local function mend()
    local named = {}
    for _, name in ipairs(dict.names()) do
        local head = reader.head(name)
        if head then
            named[dict.head_key(name, head.version)] = true
            for _, id in ipairs(head.ids or {}) do
                named[dict.chunk_key(name, id)] = true
            end
        end
    end
    dict.mend(named)
end


-- @return whether it was had, and whether the worker that held it has died
local function lock()
    local id = process.id()
    local deadline = clock.now() + lock_seconds
    repeat
        if dict.lock(id) then
            return true
        end

        local holder = dict.lock_holder()
        if holder and not process.is_alive(holder)
           and dict.steal_lock(holder, id, lock_seconds)
        then
            return true, true
        end

        if ngx.get_phase() == "init" then
            break
        end
        ngx.sleep(0.001)
    until clock.now() > deadline

    return false
end


--- Calls f while no other request writes. f may pause: server.handle sees
-- to it that it goes on when the client is gone, and the lock of a worker that
-- dies is void.
-- @param ... what f takes
-- @return what f returns
-- @return nil, { status, detail }: 500 or 503
function _M.exclusively(f, ...)
    local locked, orphaned = lock()
    if not locked then
        return nil, { status = 503, detail = "another write is going on" }
    end

    local ok, result, err = true, nil, nil
    if orphaned then
        ok, result = pcall(mend)
    end
    if ok then
        ok, result, err = pcall(f, ...)
    end
    if not ok then
        ngx.log(ngx.ERR, "reloadless: ", result)
        pcall(mend)
        result, err = nil, { status = 500, detail = "see nginx's error log" }
    end
    dict.unlock()
    return result, err
end


return _M
