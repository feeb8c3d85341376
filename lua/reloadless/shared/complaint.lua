-- What a worker says in nginx's error log again and again, as often as requests
-- come: at most once in a time.

local clock = require("reloadless.shared.clock")

local huge = math.huge
local log = ngx.log
local ngx = ngx

local _M = {}


--- @param seconds between two lines, at least
-- @return function(...) that logs an error, unless it did so just now
function _M.every(seconds)
    local said_at = -huge
    return function(...)
        local now = clock.now()
        if now - said_at >= seconds then
            said_at = now
            log(ngx.ERR, "reloadless: ", ...)
        end
    end
end


return _M
