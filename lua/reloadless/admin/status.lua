-- The resource /v1/status: what is live.

local answer = require("reloadless.admin.answer")
local counters = require("reloadless.shared.counters")
local dict = require("reloadless.table.dict")
local json = require("reloadless.table.json")
local lease = require("reloadless.admin.lease")
local overrides = require("reloadless.table.overrides")
local reader = require("reloadless.table.read")
local sorted_keys = require("reloadless.shared.sorted_keys")
local writer = require("reloadless.table.write")

local ipairs = ipairs
local ngx = ngx
local sub = string.sub


local function state_of(fields, ejected)
    if fields.drain and not fields.down then
        return "drain"
    elseif fields.down or fields.weight == 0 then
        return "down"
    end
    return ejected and "ejected" or "up"
end


-- @param effective the fields with what a person says of them
local function peer_json(fields, effective, requests, failures, active, ejected)
    fields.requests, fields.failures, fields.active = requests, failures, active
    fields.state = state_of(effective, ejected)
    fields.weight = fields.weight or 1
    return json.encode(fields)
end


-- @return false when the client has gone
local function tell_upstream(write, name, read, count)
    local settings = json.decode(read.settings)
    settings.balance = settings.balance or "round_robin"
    settings.version = read.version
    write(json.encode(name) .. ":" .. sub(json.encode(settings), 1, -2)
          .. ',"peers":{')

    local comma = ""
    for _, id in ipairs(read.ids) do
        local peers = json.decode_peers(read.bodies[id])
        for _, key in ipairs(sorted_keys(peers)) do
            local fields = peers[key]
            local effective = overrides.over(fields, settings, key)
            if not write(comma .. '"' .. key .. '":'
                         .. peer_json(fields, effective, count(name, key)))
            then
                return false
            end
            comma = ","
        end
    end
    return write("}}")
end


local function facts()
    local source, updated_at = dict.last_write()
    return {
        instance = dict.instance(),
        version = dict.version(),
        source = source,
        updated_at = os.date("!%Y-%m-%dT%H:%M:%SZ", updated_at),
        capacity = dict.capacity(),
        free_space = dict.free_space(),
        warning = writer.warning(),
        agents = lease.all(),
    }
end


-- The table's facts, the agents and, for each upstream and peer, its settings,
-- state and counters. The version is that of the table at the beginning: an
-- upstream that changes meanwhile may be newer, as its own version says, and
-- one that goes may be missing.
local function show()
    local wanted = ngx.var.arg_upstream
    if wanted and not dict.upstream_version(wanted) then
        return { status = 404, detail = "there is no upstream " .. wanted }
    end

    local first = sub(json.encode(facts()), 1, -2) .. ',"upstreams":{'
    local names = wanted and { wanted } or dict.names()
    local count = counters.reader()
    answer.long_json(nil, function(write)
        write(first)
        local comma = ""
        for _, name in ipairs(names) do
            local read = reader.upstream(name)
            if read then
                write(comma)
                comma = ","
                if not tell_upstream(write, name, read, count) then
                    return
                end
            end
        end
        write("}}\n")
    end)
end


-- by method
return { GET = show }
