-- The answers of the admin API. Errors are problem details (RFC 9457).

local json = require("reloadless.table.json")
local pause = require("reloadless.shared.pause")

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


-- So much is sent at once.
local slice_bytes = 32 * 1024


--- Answers 200 with a text of JSON that may be long: in slices, so that others
-- are served meanwhile.
-- @param length of the text in bytes, or nil when it is not known yet
-- @param tell function that tells the text: it calls the function that it is
--   given with each piece, and ends when that returns false, since the client
--   has gone
function _M.long_json(length, tell)
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = length
    ngx.header["Cache-Control"] = "no-store"
    if ngx.req.get_method() == "HEAD" then
        return
    end

    local slice, size = {}, 0
    tell(function(piece)
        slice[#slice + 1], size = piece, size + #piece
        pause.after(1)
        if size < slice_bytes then
            return true
        end
        ngx.print(slice)
        slice, size = {}, 0
        local sent, err = ngx.flush(true)
        -- HTTP/1.0 gets all at once
        return sent or err == "buffering"
    end)
    ngx.print(slice)
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
