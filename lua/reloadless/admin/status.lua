-- The resource /v1/status: what is live.

local answer = require("reloadless.admin.answer")
local counters = require("reloadless.shared.counters")
local dict = require("reloadless.table.dict")
local json = require("reloadless.table.json")
local lease = require("reloadless.admin.lease")
local reader = require("reloadless.table.read")

local concat = table.concat
local ipairs = ipairs
local pairs = pairs
local sort = table.sort


local function state_of(fields, ejected)
    if fields.drain and not fields.down then
        return "drain"
    elseif fields.down or fields.weight == 0 then
        return "down"
    end
    return ejected and "ejected" or "up"
end


local function object(members)
    sort(members)
    return "{" .. concat(members, ",") .. "}"
end


local function upstream_json(name, read, count)
    local members = {}
    for _, body in pairs(read.bodies) do
        for key, fields in pairs(json.decode_peers(body)) do
            local ejected
            fields.requests, fields.failures, fields.active, ejected =
                count(name, key)
            fields.state = state_of(fields, ejected)
            fields.weight = fields.weight or 1
            members[#members + 1] = json.encode(key) .. ":"
                                    .. json.encode(fields)
        end
    end

    local settings = json.decode(read.settings)
    settings.balance = settings.balance or "round_robin"
    settings.version = read.version
    return json.encode(name) .. ":"
           .. json.encode(settings):sub(1, -2)
           .. ',"peers":' .. object(members) .. "}"
end


-- The table's facts, the agents and, for each upstream and peer, its settings,
-- state and counters.
local function show()
    local source, updated_at = dict.last_write()
    local facts = {
        instance = dict.instance(),
        version = dict.version(),
        source = source,
        updated_at = os.date("!%Y-%m-%dT%H:%M:%SZ", updated_at),
        capacity = dict.capacity(),
        free_space = dict.free_space(),
        agents = lease.all(),
    }
    local count = counters.reader()

    local members = {}
    for _, name in ipairs(dict.names()) do
        local read = reader.upstream(name)
        if read then
            members[#members + 1] = upstream_json(name, read, count)
        end
    end
    answer.json(json.encode(facts):sub(1, -2)
                .. ',"upstreams":' .. object(members) .. "}")
end


-- by method
return { GET = show }
