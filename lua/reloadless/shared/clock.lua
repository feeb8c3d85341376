-- A clock that nobody sets: nginx's own for its timers, from CLOCK_MONOTONIC,
-- read once in each turn of its event loop. ngx.now() is the wall clock, which
-- may step: see docs/discoveries/clocks.md

local ffi = require("ffi")

local tonumber = tonumber

ffi.cdef[[
extern intptr_t ngx_current_msec[1];
]]

local _M = {}

-- an array of one: only of such does ffi give the place, once
local milliseconds = ffi.C.ngx_current_msec


--- @return seconds since some time
function _M.now()
    return tonumber(milliseconds[0]) / 1000
end


return _M
