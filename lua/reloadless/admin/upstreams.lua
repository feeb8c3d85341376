-- The resources /v1/upstreams and /v1/upstreams/<name>. Each handler answers,
-- or returns the error that is to be answered.

local answer = require("reloadless.admin.answer")
local dict = require("reloadless.table.dict")
local document = require("reloadless.table.document")
local dump = require("reloadless.table.dump")
local requests = require("reloadless.admin.request")
local state = require("reloadless.boot.state")
local writer = require("reloadless.table.write")

local concat = table.concat
local has_etag = requests.has_etag
local ipairs = ipairs
local ngx = ngx
local null = ngx.null

local _M = {}

local patch_types = { "application/merge-patch+json", "application/json" }
local put_types = { "application/json" }


local function show(request)
    local etag = dict.etag(dict.version())
    if request.if_none_match and has_etag(request.if_none_match, etag) then
        ngx.header["ETag"] = etag
        ngx.status = 304
        return nil
    end

    local shown, err = dump.json(request.name)
    if not shown then
        return err
    end
    ngx.header["ETag"] = dict.etag(shown.version)
    local length = 1
    for _, piece in ipairs(shown.pieces) do
        length = length + #piece
    end
    answer.long_json(length, function(write)
        for _, piece in ipairs(shown.pieces) do
            if not write(piece) then
                return
            end
        end
        write("\n")
    end)
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
        ngx.header["ETag"] = dict.etag(dict.version())
        return err
    end

    -- before the answer: what was answered outlives a nginx that is killed
    if result.is_kept or not result.changed[1] then
        local _, why = state.save()
        ngx.header["Reloadless-Saved"] = why and "no; " .. why
    end

    ngx.header["ETag"] = dict.etag(result.version)
    local changed = {}
    for i, name in ipairs(result.changed) do
        changed[i] = '"' .. name .. '"'
    end
    answer.json('{"version":' .. result.version .. ',"changed":['
                .. concat(changed, ",") .. "]}")
end


local function write_all(request, options, types, replace)
    local body, err = requests.read_body(types, options.max_body)
    local jobs
    if body ~= nil then
        jobs, err = document.check_all(body, replace, options.refuse)
    end
    if not jobs then
        return err
    end
    return write(request, jobs, replace)
end


local function write_one(request, options, types, replace)
    local body, err = requests.read_body(types, options.max_body)
    if body == nil then
        return err
    end
    if body == null then
        return { status = 422, pointer = "",
                 detail = "expected an object; DELETE removes" }
    end
    local job
    job, err = document.check({ name = request.name, value = body,
                                replace = replace, pointer = "" },
                              options.refuse)
    if not job then
        return err
    end
    job.known = not replace
    return write(request, { job })
end


--- All upstreams, by method.
_M.all = {
    GET = show,
    PATCH = function(request, options)
        return write_all(request, options, patch_types, false)
    end,
    PUT = function(request, options)
        return write_all(request, options, put_types, true)
    end,
}


--- One upstream, by method.
_M.one = {
    GET = show,
    PATCH = function(request, options)
        return write_one(request, options, patch_types, false)
    end,
    PUT = function(request, options)
        return write_one(request, options, put_types, true)
    end,
    DELETE = function(request)
        return write(request, { { name = request.name, value = null,
                                  pointer = "", known = true } })
    end,
}


return _M
