-- The admin API over HTTP: which resource a request is for, and what it may do
-- there.

local access = require("reloadless.admin.access")
local agents = require("reloadless.admin.agents")
local answer = require("reloadless.admin.answer")
local dict = require("reloadless.table.dict")
local generations = require("reloadless.boot.generations")
local listeners = require("reloadless.admin.listeners")
local requests = require("reloadless.admin.request")
local status = require("reloadless.admin.status")
local upstreams = require("reloadless.admin.upstreams")
local writer = require("reloadless.table.write")

local concat = table.concat
local match = string.match
local ngx = ngx
local pairs = pairs
local sort = table.sort

local _M = {}

-- what init was given
local options


-- @return the methods of a resource and, in its path, what its name is
local function route(path)
    -- an owner may be any text: in path nginx has decoded its slashes and dots
    local owner = match(ngx.var.request_uri, "^/v1/agents/([^/?]+)")
    if owner then
        return agents, ngx.unescape_uri(owner)
    end

    if path == "/v1/upstreams" then
        return upstreams.all
    elseif path == "/v1/status" then
        return status
    end

    local name = match(path, "^/v1/upstreams/([^/]+)$")
    if name then
        return upstreams.one, name
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
    sort(names)
    ngx.header["Allow"] = concat(names, ", ")
    return { status = 405, detail = "expected " .. concat(names, ", ") }
end


-- @return nil, or an error { status, detail, pointer, errors, holder }
local function respond()
    local err = access.refusal()
    if err then
        return err
    end

    local introduction = ngx.var.http_reloadless_generation
    if introduction then
        ngx.header[generations.introduction] = generations.meet(introduction)
    end
    ngx.header["Reloadless-Instances"] = generations.instances()
    ngx.header["Reloadless-Warning"] = writer.warning()

    local methods, name = route(ngx.var.uri)
    if not methods then
        return { status = 404, detail = "no such resource: see /v1/upstreams"
                                        .. " and /v1/status" }
    end

    local method = ngx.req.get_method()
    local handler = methods[method == "HEAD" and "GET" or method]
    if not handler then
        return method_refused(methods)
    end
    if methods == upstreams.one and method ~= "PUT"
       and not dict.upstream_version(name)
    then
        return { status = 404, detail = "there is no upstream " .. name }
    end

    local request
    request, err = requests.read_conditions()
    if not request then
        return err
    end
    request.name = name
    return handler(request, options)
end


--- Answers a request to the admin API: the content handler of its server.
function _M.handle()
    -- Where lua_check_client_abort is on, nginx would end a request whose
    -- client is gone in the midst of a pause, and that would keep the lock.
    ngx.on_abort(function() end)
    listeners.note(ngx.var.server_addr, ngx.var.server_port)
    local err = respond()
    if err then
        answer.problem(err)
    end
end


--- @param given { token_file, when there should be a token; token, when there
--   is one; refuse = function(parsed address) that returns what is expected
--   instead of it or nil; max_body = bytes }
function _M.init(given)
    options = given
    access.init(given)
end


return _M
