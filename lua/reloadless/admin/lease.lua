-- Which agent manages the upstreams of an owner now. An agent takes a lease of
-- its owner and renews it; one of another configuration is refused meanwhile,
-- so that the two do not undo each other's changes. Leases move no version.
-- In the dict lie, as JSON with the time when the lease ends, the agent that
-- has it and the last one that was refused.

local cjson = require("cjson.safe")
local dict = require("reloadless.table.dict")

local ipairs = ipairs
local pairs = pairs

local _M = {}

-- An agent renews its lease about every 3 s.
local lease_seconds = 10


-- @return the agent under a key, unless its time is over
local function living(key)
    local text = dict.get(key)
    local agent = text and cjson.decode(text)
    -- a wall clock that went back must not make it longer
    local left = agent and agent.ends - ngx.now()
    if not left or left <= 0 or left > lease_seconds then
        return nil
    end
    agent.ends = nil
    return agent
end


local function keep(key, agent)
    local kept = { ends = ngx.now() + lease_seconds }
    for name, value in pairs(agent) do
        kept[name] = value
    end
    return dict.set(key, cjson.encode(kept), lease_seconds)
end


--- Takes the lease of an owner, or renews it.
-- @param agent { id, host, pid, since }: who has the same id has the same
--   configuration, and so the same lease
-- @return true; nil when there is no room for it
-- @return nil and the agent that has it
function _M.take(owner, agent)
    local holder = _M.holder(owner)
    if holder and holder.id ~= agent.id then
        keep(dict.refused_key(owner), agent)
        return nil, holder
    end
    return keep(dict.lease_key(owner), agent)
end


--- @return the agent that has the lease of an owner, or nil
function _M.holder(owner)
    return living(dict.lease_key(owner))
end


--- Gives the lease of an owner back.
-- @param id of the agent that gives it back; nil for whoever has it
function _M.drop(owner, id)
    local holder = _M.holder(owner)
    if holder and (not id or holder.id == id) then
        dict.delete(dict.lease_key(owner))
    end
end


--- @return the agents that have leases, by owner; `waiting` of each is the
-- last one that was refused, if it still asks
function _M.all()
    local agents = {}
    for _, owner in ipairs(dict.owners()) do
        local agent = _M.holder(owner)
        if agent then
            agent.waiting = living(dict.refused_key(owner))
            agents[owner] = agent
        end
    end
    return agents
end


return _M
