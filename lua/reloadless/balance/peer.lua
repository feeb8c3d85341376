-- The record of one peer in one worker: all of its fields, and whose they are.
-- Each is written by the module of its group alone; any may read it.

local address = require("reloadless.table.address")

local random = math.random

local _M = {}


--- @param upstream the name of its upstream
-- @param key its address
-- @param paces of its upstream: mean is the average of all answers, in seconds
-- @return a peer that takes no traffic yet
function _M.new(upstream, key, paces)
    local parsed = address.parse(key)
    -- All fields are there from the start: code that LuaJIT has compiled for
    -- one peer then fits the next.
    return {
        -- what never changes
        key = key,
        id = upstream .. ":" .. key,
        host = parsed.host,
        port = parsed.port,
        phase = random(),       -- its place in the turns of this worker

        -- upstream: as the document has it, with the defaults of its upstream
        weight = 0,
        backup = false,
        drain = false,
        down = false,
        zone = false,
        max_conns = 0,
        slow_start = 0,         -- seconds
        max_fails = 1,
        fail_timeout = 10,      -- seconds
        is_in = false,          -- takes new traffic

        -- shared/counters
        active = 0,             -- requests that this worker has on it now
        requests = 0,           -- since the last flush
        failures = 0,           -- since the last flush
        touched = false,        -- has something to report

        -- fitness
        ejected = false,
        probe = false,          -- the next request shows whether it is back
        full = false,           -- has no connection left
        until_time = 0,         -- of being ejected or full
        fails = 0,              -- in a row, within fail_timeout
        failed_at = false,      -- the last time, until that is forgiven
        spared_at = false,      -- when a closed connection was last forgiven
        is_pooled = false,      -- it has answered: its connection may be kept
        ramp_from = false,      -- when its slow start began

        -- structure/heap, in the agenda of fitness and among the full ones
        due_place = false,
        full_place = false,

        -- picker/least_conn: its average answer, and that of its upstream
        pace = false,
        paces = paces,

        -- picker/ewma: seconds of an answer, and when that was
        latency = false,
        latency_at = 0,
    }
end


return _M
