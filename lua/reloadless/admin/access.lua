-- Who may ask the admin API.

local counters = require("reloadless.shared.counters")
local random_bytes = require("reloadless.shared.random_bytes")

local find = string.find
local match = string.match
local ngx = ngx
local type = type

local _M = {}

-- what init was given
local token, has_token_file

-- that nobody else knows
local compare_key


local function is_cross_site()
    local headers = ngx.req.get_headers()
    local site = headers["sec-fetch-site"]
    if site and site ~= "same-origin" and site ~= "none" then
        return true
    end

    local origin = headers["origin"]
    if type(origin) ~= "string" then
        -- more than one: no browser of ours
        return origin ~= nil
    end
    return match(origin, "^https?://(.+)$") ~= headers["host"]
end


-- Equal digests under a key that nobody knows: how long the comparison takes
-- tells nothing about the token.
local function is_same(a, b)
    return ngx.hmac_sha1(compare_key, a) == ngx.hmac_sha1(compare_key, b)
end


-- At most once an hour: a request that is refused must not fill the log.
local function say_how_to_open()
    if counters.is_news("no_token", 3600) then
        ngx.log(ngx.ERR, "reloadless: the admin API refuses everything on TCP:",
                " put a token into a file that only nginx's master and the",
                " agent can read, and name it in init{ token_file = ... }")
    end
end


-- By what the connection itself says: no header, and no PROXY protocol, makes
-- it another.
local function is_unix_socket()
    return find(ngx.var.server_addr, "unix:", 1, true) == 1
end


--- Whether this request is refused. Who reaches a unix socket is a matter of
-- its folder. On TCP, loopback too, it may be anyone whom this nginx proxies.
-- @return nil, or an error { status, detail }: 401 or 403
function _M.refusal()
    if is_cross_site() then
        return { status = 403, detail = "cross-site requests are refused" }
    end

    if not token and not has_token_file then
        if is_unix_socket() then
            return nil
        end
        say_how_to_open()
    end
    if not token then
        return { status = 403,
                 detail = "closed for want of a token: see nginx's error log" }
    end

    local given = match(ngx.var.http_authorization or "",
                        "^[Bb][Ee][Aa][Rr][Ee][Rr] +(%S+)%s*$")
    if not given or not is_same(given, token) then
        ngx.header["WWW-Authenticate"] = 'Bearer realm="reloadless"'
        return { status = 401, detail = given and "the bearer token is wrong"
                                        or "a bearer token is required" }
    end
end


--- @param options { token_file, when there should be a token; token, when there
--   is one }
function _M.init(options)
    token, has_token_file = options.token, options.token_file ~= nil
    compare_key = random_bytes(20)
end


return _M
