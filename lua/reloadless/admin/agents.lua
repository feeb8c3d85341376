-- The resource /v1/agents/<owner>: the lease of an owner. Each handler answers,
-- or returns the error that is to be answered.

local answer = require("reloadless.admin.answer")
local dict = require("reloadless.table.dict")
local document = require("reloadless.table.document")
local json = require("reloadless.table.json")
local lease = require("reloadless.admin.lease")
local requests = require("reloadless.admin.request")

local format = string.format
local ngx = ngx

local types = { "application/json" }


local function show(request)
    local agent = lease.holder(request.name)
    if not agent then
        return { status = 404, detail = "no agent of this owner is alive" }
    end
    answer.json(json.encode(agent))
end


local function take(request, options)
    local body, err = requests.read_body(types, options.max_body)
    if body ~= nil then
        err = document.check_agent(request.name, body)
    end
    if err then
        return err
    end

    local taken, holder = lease.take(request.name, body)
    if holder then
        return {
            status = 409, holder = holder,
            detail = format("an agent of another configuration has this"
                            .. " owner: pid %d on %s, since %s",
                            holder.pid, holder.host, holder.since),
        }
    elseif not taken then
        return { status = 507, detail = "the shared dict is full" }
    end
    -- so that a renewal spares the agent a look
    ngx.header["Reloadless-Table"] = dict.etag(dict.version())
    ngx.status = 204
end


local function drop(request)
    lease.drop(request.name, ngx.var.arg_id)
    ngx.status = 204
end


-- by method
return { GET = show, PUT = take, DELETE = drop }
