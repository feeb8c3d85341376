-- Lets a worker serve others in the midst of long work for the admin API. At
-- start, nginx serves nobody yet, and the work goes on without a pause.

local clock = require("reloadless.shared.clock")
local ffi = require("ffi")

local C = ffi.C
local ngx = ngx
local now = clock.now
local tonumber = tonumber

-- Under a name of our own: another module may have declared it otherwise.
ffi.cdef[[
struct reloadless_time { long seconds, nanoseconds; };
int reloadless_clock_gettime(int clock, struct reloadless_time *time)
    __asm__("clock_gettime");
]]

local _M = {}

-- Of a turn of nginx's event loop, in milliseconds.
local slice = 2
-- Work between two looks at the clock, in peers that are checked or written.
local most_unseen = 32

local CLOCK_MONOTONIC = ({ Linux = 1, OSX = 6 })[jit.os] or 4
local time = ffi.new("struct reloadless_time")

-- The turn, by nginx's time, which stands still during it; when the first work
-- of it began; and what was done since the last look at the clock.
local turn, began, unseen = nil, 0, 0


local function milliseconds()
    C.reloadless_clock_gettime(CLOCK_MONOTONIC, time)
    return tonumber(time.seconds) * 1e3 + tonumber(time.nanoseconds) / 1e6
end


--- Pauses, behind work that cannot be cut.
function _M.now()
    local phase = ngx.get_phase()
    if phase == "content" or phase == "timer" then
        -- sleep(0) lets nobody in: see docs/discoveries/sleep-zero.md
        ngx.sleep(0.001)
    end
end


--- Counts work, and pauses when this turn has had its share: all requests that
-- work in it together.
-- @param peers as many as would have cost the same
function _M.after(peers)
    unseen = unseen + peers
    if unseen < most_unseen then
        return
    end
    unseen = 0

    if turn ~= now() then
        turn, began = now(), milliseconds()
    elseif milliseconds() - began > slice then
        _M.now()
    end
end


return _M
