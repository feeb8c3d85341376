-- Worker processes of nginx, by pid.

local ffi = require("ffi")

local C = ffi.C

ffi.cdef[[
int kill(int pid, int sig);
]]

local _M = {}

local ESRCH = 3


--- Whether a process of this pid runs.
function _M.is_alive(pid)
    return C.kill(pid, 0) == 0 or ffi.errno() ~= ESRCH
end


return _M
