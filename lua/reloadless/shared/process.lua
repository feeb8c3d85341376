-- Processes of nginx, each by an id that no other ever has: its pid and,
-- where /proc tells it, the time of its start. A pid alone is given to another
-- process in time.

local ffi = require("ffi")

local C = ffi.C
local match = string.match
local open = io.open
local rep = string.rep
local tonumber = tonumber

ffi.cdef[[
int kill(int pid, int sig);
]]

local _M = {}

local ESRCH = 3

-- field 22 of proc(5); the second one, in brackets, may hold anything
local start_time = "^.*%)" .. rep(" %S+", 19) .. " (%d+)"

local own_pid, own_id


local function started(pid)
    local file = open("/proc/" .. pid .. "/stat", "rb")
    local text = file and file:read("*a")
    if file then
        file:close()
    end
    return text and match(text, start_time)
end


--- The id of a process that runs.
function _M.id_of(pid)
    return pid .. "-" .. (started(pid) or "")
end


--- The id of this process.
function _M.id()
    local pid = ngx.worker.pid()
    -- workers are forked from a master that may have asked before
    if pid ~= own_pid then
        own_pid, own_id = pid, _M.id_of(pid)
    end
    return own_id
end


--- Whether the process of this id runs. Where nobody can tell, it does.
function _M.is_alive(id)
    local pid, start = match(id, "^(%d+)%-(%d*)$")
    if C.kill(tonumber(pid), 0) ~= 0 and ffi.errno() == ESRCH then
        return false
    end
    local now = started(pid)
    return start == "" or not now or now == start
end


return _M
