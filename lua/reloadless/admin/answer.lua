-- The answers of the admin API. Errors are problem details (RFC 9457).

local json = require("reloadless.table.json")

local ngx = ngx

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


local function send(status, content_type, body)
    ngx.status = status
    ngx.header["Content-Type"] = content_type
    ngx.header["Content-Length"] = #body
    ngx.header["Cache-Control"] = "no-store"
    if ngx.req.get_method() ~= "HEAD" then
        ngx.print(body)
    end
end


--- Answers 200 with a text of JSON.
function _M.json(text)
    send(200, "application/json", text .. "\n")
end


--- Answers with what is wrong.
-- @param err { status, detail, pointer, errors, holder }: all but status and
--   detail may be missing
function _M.problem(err)
    send(err.status, "application/problem+json", json.encode({
        type = "about:blank",
        title = titles[err.status],
        status = err.status,
        detail = err.detail,
        pointer = err.pointer,
        errors = err.errors,
        holder = err.holder,
    }) .. "\n")
end


return _M
