-- The snapshot file, read at boot: line 1 a JSON header {"format":1,
-- "saved_at":…,"length":…,"crc32":…} about line 2, the document.

local document = require("reloadless.document")
local upstreams = require("reloadless.table")
local writer = require("reloadless.writer")

local match = string.match

local _M = {}


-- @return the document as text
-- @return nil and why not; the error is nil when there is no file
local function read(path)
    local file, err, code = io.open(path, "rb")
    if not file then
        local ENOENT = 2
        return nil, code ~= ENOENT and err or nil
    end

    local content = file:read("*a")
    file:close()
    local first, body = match(content or "", "^([^\n]*)\n(.*)$")
    local header = first and document.decode(first)
    if type(header) ~= "table" or header.format ~= 1 then
        return nil, "its first line is not a header of format 1"
    end

    body = body:gsub("\n$", "")
    if #body ~= header.length then
        return nil, "its document has " .. #body .. " bytes, the header says "
                    .. tostring(header.length)
    end
    if ngx.crc32_long(body) ~= header.crc32 then
        return nil, "its document does not match the header's crc32"
    end

    return body
end


--- Fills the table, which must be empty, from the file. A file that is damaged
-- stays as it is for a person to see, and the table stays empty.
-- @param path of the file
-- @param refuse as document.check takes it
function _M.load(path, refuse)
    local text, err = read(path)
    if not text then
        if err then
            ngx.log(ngx.ERR, "reloadless: snapshot ", path,
                    " is not used: ", err)
        end
        return
    end

    local body, problem = document.decode(text)
    local jobs, result
    if body then
        jobs, problem = document.check_all(body, true, refuse)
    end
    if jobs then
        result, problem = writer.write(jobs, {
            source = "snapshot",
            -- after a reload the old workers may write before this does
            if_match = function(etag)
                return etag == upstreams.etag(0)
            end,
        })
    end
    if not result then
        ngx.log(ngx.ERR, "reloadless: snapshot ", path, " is not used: ",
                problem.pointer or "", " ", problem.detail)
        return
    end

    ngx.log(ngx.NOTICE, "reloadless: ", #result.changed,
            " upstreams from snapshot ", path)
end


return _M
