-- What became of a try, read from nginx's variables of the upstream: one value
-- for each try, joined by ", ", or by " : " where a redirect was between.

local byte = string.byte
local match = string.match
local ngx = ngx
local tonumber = tonumber

local _M = {}


-- Of a request that had one try and its answer in less than 10 s: "0.003". Most
-- requests are such, and this costs a tenth of the general way.
local function header_seconds()
    local text = ngx.var.upstream_header_time
    if text and #text == 5 then
        local whole, point, a, b, c = byte(text, 1, 5)
        if point == 46 then
            return whole - 48 + (a * 100 + b * 10 + c - 48 * 111) / 1000
        end
    end
end


-- While the balancer runs, the try that begins stands last and is nothing yet:
-- " : " on a retry, " : -" after a redirect.
local function last_of(name, is_over)
    local values = ngx.var[name]
    return values and match(values, is_over and "([^ ,:]+)$"
                                    or "([^ ,:]+) : %-?$")
end


--- The last try that is over.
-- @param is_over whether the request is; else another try begins
-- @return "answered"; "failed", when the peer gave no answer as nginx means it;
--   or "left", when the client did not wait for one
-- @return the seconds until the answer began, or until the try ended, or nil
-- @return when it failed, whether its connection may be one of the pool that
--   the peer had closed: connecting took it no time
function _M.last(is_over)
    local seconds = is_over and header_seconds()
                    or tonumber(last_of("upstream_header_time", is_over))
    if seconds then
        return "answered", seconds
    end

    seconds = tonumber(last_of("upstream_response_time", is_over))
    local status = last_of("upstream_status", is_over)
    if status ~= "502" and status ~= "504" then
        return "left", seconds
    end
    local connecting = tonumber(last_of("upstream_connect_time", is_over))
    return "failed", seconds, connecting == 0 and status == "502"
end


return _M
