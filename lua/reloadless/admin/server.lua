-- The admin API over HTTP: who may ask, what was asked, and the answer. Errors
-- are problem details (RFC 9457).

local counters = require("reloadless.shared.counters")
local dict = require("reloadless.table.dict")
local document = require("reloadless.table.document")
local dump = require("reloadless.table.dump")
local generations = require("reloadless.boot.generations")
local json = require("reloadless.table.json")
local lease = require("reloadless.admin.lease")
local listeners = require("reloadless.admin.listeners")
local pause = require("reloadless.shared.pause")
local status_page = require("reloadless.admin.status")
local upstreams = require("reloadless.table.read")
local writer = require("reloadless.table.write")

local concat = table.concat
local find = string.find
local format = string.format
local gsub = string.gsub
local ipairs = ipairs
local lower = string.lower
local match = string.match
local ngx = ngx
local null = ngx.null
local pairs = pairs
local sub = string.sub
local type = type

local _M = {}

local titles = {
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [409] = "Conflict",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Content Too Large",
    [415] = "Unsupported Media Type",
    [422] = "Unprocessable Content",
    [500] = "Internal Server Error",
    [503] = "Service Unavailable",
    [507] = "Insufficient Storage",
}

local patch_types = { "application/merge-patch+json", "application/json" }
local put_types = { "application/json" }

local conditions = {
    if_match = "If-Match",
    if_none_match = "If-None-Match",
}

-- what init was given
local settings


local function answer(status, content_type, body)
    ngx.status = status
    ngx.header["Content-Type"] = content_type
    ngx.header["Content-Length"] = #body
    ngx.header["Cache-Control"] = "no-store"
    if ngx.req.get_method() ~= "HEAD" then
        ngx.print(body)
    end
end


local function problem(err)
    answer(err.status, "application/problem+json", json.encode({
        type = "about:blank",
        title = titles[err.status],
        status = err.status,
        detail = err.detail,
        pointer = err.pointer,
        errors = err.errors,
        holder = err.holder,
    }) .. "\n")
end


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
    local key = settings.compare_key
    return ngx.hmac_sha1(key, a) == ngx.hmac_sha1(key, b)
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


-- Who reaches a unix socket is a matter of its folder. On TCP, loopback too,
-- it may be anyone whom this nginx proxies.
local function refusal()
    if is_cross_site() then
        return { status = 403, detail = "cross-site requests are refused" }
    end

    local token = settings.token
    if not token and not settings.token_file then
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


-- Reads "*" or a list of entity tags, whose members may be empty (RFC 9110
-- 8.8.3 and 5.6.1).
-- @return { any = true } or { [tag] = "" or "W/" }; nil when it is neither
local function parse_etags(header)
    if match(header, "^[ \t]*%*[ \t]*$") then
        return { any = true }
    end

    local tags, at = {}, 1
    while at <= #header do
        local weak, tag, after =
            match(header, '^[ \t]*([W/]*)("[!#-~\128-\255]*")[ \t]*()', at)
        after = after or match(header, "^[ \t]*()", at)
        if (tag and weak ~= "" and weak ~= "W/")
           or (after <= #header and sub(header, after, after) ~= ",")
        then
            return nil
        end
        if tag and tags[tag] ~= "" then
            tags[tag] = weak
        end
        at = after + 1
    end
    return tags
end


-- @param strongly whether a weak tag never matches (RFC 9110 8.8.3.2)
local function has_etag(tags, etag, strongly)
    local weak = tags[etag]
    return tags.any or weak == "" or (weak == "W/" and not strongly)
end


local function is_one_of(types, value)
    for _, known in ipairs(types) do
        if known == value then
            return true
        end
    end
    return false
end


local function read_body(types)
    local content_type = lower(match(ngx.var.content_type or "",
                                     "^%s*([^;%s]*)"))
    if not is_one_of(types, content_type) then
        return nil, { status = 415, detail = "Content-Type is '" .. content_type
                      .. "': expected " .. concat(types, " or ") }
    end

    local length = tonumber(ngx.var.http_content_length)
    if not length then
        return nil, { status = 411, detail = "Content-Length is missing" }
    end
    if length > settings.max_body then
        return nil, { status = 413, detail = "the body has " .. length
                      .. " bytes: expected at most " .. settings.max_body }
    end

    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    if not body then
        local path = ngx.req.get_body_file()
        local file = path and io.open(path, "rb")
        body = file and file:read("*a") or ""
        if file then
            file:close()
        end
    end

    return json.decode(body)
end


local function write(request, jobs, whole)
    local if_match = request.if_match
    local result, err = writer.write(jobs, {
        source = "admin",
        whole = whole,
        if_match = if_match and function(etag)
            return has_etag(if_match, etag, true)
        end,
    })
    if not result then
        ngx.header["ETag"] = upstreams.etag(dict.version())
        return problem(err)
    end

    ngx.header["ETag"] = upstreams.etag(result.version)
    local changed = {}
    for i, name in ipairs(result.changed) do
        changed[i] = '"' .. name .. '"'
    end
    answer(200, "application/json", '{"version":' .. result.version
           .. ',"changed":[' .. concat(changed, ",") .. "]}\n")
end


local function show(request)
    local etag = upstreams.etag(dict.version())
    if request.if_none_match and has_etag(request.if_none_match, etag) then
        ngx.header["ETag"] = etag
        ngx.status = 304
        return
    end

    local shown, err = dump.json(request.name)
    if not shown then
        return problem(err)
    end
    ngx.header["ETag"] = upstreams.etag(shown.version)
    answer(200, "application/json", shown.json .. "\n")
end


local function write_all(request, types, replace)
    local body, err = read_body(types)
    local jobs
    if body ~= nil then
        jobs, err = document.check_all(body, replace, settings.refuse)
    end
    if not jobs then
        return problem(err)
    end
    write(request, jobs, replace)
end


local function write_one(request, types, replace)
    local body, err = read_body(types)
    if body == nil then
        return problem(err)
    end
    if body == null then
        return problem({ status = 422, pointer = "",
                         detail = "expected an object; DELETE removes" })
    end
    local job
    job, err = document.check({ name = request.name, value = body,
                                replace = replace, pointer = "" },
                              settings.refuse)
    if not job then
        return problem(err)
    end
    job.known = not replace
    write(request, { job })
end


local all = {
    GET = show,
    PATCH = function(request)
        write_all(request, patch_types, false)
    end,
    PUT = function(request)
        write_all(request, put_types, true)
    end,
}

local one = {
    GET = show,
    PATCH = function(request)
        write_one(request, patch_types, false)
    end,
    PUT = function(request)
        write_one(request, put_types, true)
    end,
    DELETE = function(request)
        write(request, { { name = request.name, value = null, pointer = "",
                           known = true } })
    end,
}

local status = {
    GET = function()
        answer(200, "application/json", status_page.json() .. "\n")
    end,
}


local function show_agent(request)
    local agent = lease.holder(request.name)
    if not agent then
        return problem({ status = 404, detail = "no agent of this owner is"
                                                .. " alive" })
    end
    answer(200, "application/json", json.encode(agent) .. "\n")
end


local function take_lease(request)
    local body, err = read_body(put_types)
    if body ~= nil then
        err = document.check_agent(request.name, body)
    end
    if err then
        return problem(err)
    end

    local taken, holder = lease.take(request.name, body)
    if holder then
        return problem({
            status = 409, holder = holder,
            detail = format("an agent of another configuration has this"
                            .. " owner: pid %d on %s, since %s",
                            holder.pid, holder.host, holder.since),
        })
    elseif not taken then
        return problem({ status = 507, detail = "the shared dict is full" })
    end
    ngx.status = 204
end


local agent = {
    GET = show_agent,
    PUT = take_lease,
    DELETE = function(request)
        lease.drop(request.name, ngx.var.arg_id)
        ngx.status = 204
    end,
}


-- @return the methods of a resource and, in its path, what its name is
local function route(path)
    -- an owner may be any text: in path nginx has decoded its slashes and dots
    local owner = match(ngx.var.request_uri, "^/v1/agents/([^/?]+)")
    if owner then
        return agent, ngx.unescape_uri(owner)
    end

    if path == "/v1/upstreams" then
        return all
    elseif path == "/v1/status" then
        return status
    end

    local name = match(path, "^/v1/upstreams/([^/]+)$")
    if name then
        return one, name
    end
end


local function method_refused(methods)
    local names = {}
    for name in pairs(methods) do
        names[#names + 1] = name
        if name == "GET" then
            names[#names + 1] = "HEAD"
        end
    end
    table.sort(names)
    ngx.header["Allow"] = concat(names, ", ")
    problem({ status = 405, detail = "expected " .. concat(names, ", ") })
end


--- Answers a request to the admin API: the content handler of its server.
function _M.handle()
    pause.reset()
    -- Where lua_check_client_abort is on, nginx would end a request whose
    -- client is gone in the midst of a pause, and that would keep the lock.
    ngx.on_abort(function() end)
    listeners.note(ngx.var.server_addr, ngx.var.server_port)
    local err = refusal()
    if err then
        return problem(err)
    end

    local introduction = ngx.var.http_reloadless_generation
    if introduction then
        ngx.header[generations.introduction] = generations.meet(introduction)
    end
    ngx.header["Reloadless-Instances"] = generations.instances()

    local methods, name = route(ngx.var.uri)
    if not methods then
        return problem({ status = 404, detail = "no such resource: see"
                         .. " /v1/upstreams and /v1/status" })
    end

    local method = ngx.req.get_method()
    local handler = methods[method == "HEAD" and "GET" or method]
    if not handler then
        return method_refused(methods)
    end
    if methods == one and method ~= "PUT"
       and not dict.upstream_version(name)
    then
        return problem({ status = 404,
                         detail = "there is no upstream " .. name })
    end

    local request = { name = name }
    for field, header in pairs(conditions) do
        local value = ngx.var["http_" .. field]
        request[field] = value and parse_etags(value)
        if value and not request[field] then
            local shown = gsub(value, "[^ -~]", "?")
            return problem({ status = 400, detail = header .. " is '" .. shown
                             .. "': expected * or a list of ETags" })
        end
    end
    -- nginx's own filter looks at these after us: a write that has moved the
    -- ETag would leave as 412 although it was made
    for _, header in ipairs({ "If-Match", "If-None-Match", "If-Modified-Since",
                              "If-Unmodified-Since" })
    do
        ngx.req.clear_header(header)
    end
    handler(request)
end


--- @param options { token_file, when there should be a token; token, when there
--   is one; refuse = function(parsed address) that returns what is expected
--   instead of it or nil; max_body = bytes }
function _M.init(options)
    settings = options
    local file = assert(io.open("/dev/urandom", "rb"))
    settings.compare_key = file:read(20)
    file:close()
end


return _M
