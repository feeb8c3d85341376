-- Two generations of nginx: after a USR2 the old master and the new one, each
-- with a table of its own, accept from the same sockets, until one of them
-- ends. The new one starts with the table of the old one, and from then on each
-- says in its answers that there is the other, so that the agent serves both.
-- See docs/discoveries/usr2.md.

local blocking_http = require("reloadless.boot.blocking_http")
local cjson = require("cjson.safe")
local dict = require("reloadless.table.dict")
local document = require("reloadless.table.document")
local ffi = require("ffi")
local json = require("reloadless.table.json")
local lease = require("reloadless.admin.lease")
local process = require("reloadless.shared.process")

local find = string.find
local ipairs = ipairs
local match = string.match
local pairs = pairs
local tostring = tostring

ffi.cdef[[
int getppid(void);
]]

local _M = {}

-- What the new generation says of itself when it asks the old one, and what it
-- hears of that one: "<instance> <process>".
_M.introduction = "Reloadless-Generation"


local function introduce(master)
    return dict.instance() .. " " .. master
end


-- @param beside "<instance> <process>" of the other generation
local function note(beside)
    if find(beside, "^%x+ %d+%-%d*$") then
        dict.set(dict.beside_key, beside)
    end
end


--- Takes the new generation's introduction.
-- @return our own, for the answer
function _M.meet(introduction)
    note(introduction)
    return introduce(process.id_of(ffi.C.getppid()))
end


--- @return our instance and, while the other generation lives, its own behind a
-- space
function _M.instances()
    local own = dict.instance()
    local beside = dict.get(dict.beside_key)
    if not beside then
        return own
    end
    local instance, master = match(beside, "^(%S+) (%S+)$")
    if not process.is_alive(master) then
        dict.delete(dict.beside_key)
        return own
    end
    return own .. " " .. instance
end


-- Who has upstreams there keeps the lease of them: another agent that asks here
-- first must not take them away.
local function take_leases(body, ask)
    local owners = {}
    for _, upstream in pairs(body.upstreams) do
        if upstream.owner then
            owners[upstream.owner] = true
        end
    end
    for owner in pairs(owners) do
        local answer = ask("/v1/agents/" .. ngx.escape_uri(tostring(owner)))
        local agent = answer and answer.status == 200
                      and cjson.decode(answer.body)
        if agent and not document.check_agent(owner, agent) then
            lease.take(owner, agent)
        end
    end
end


local function load_from(listener, token, fill)
    local name = "reloadless: the old generation at " .. listener
    local master = process.id_of(ngx.worker.pid())
    local headers = { _M.introduction .. ": " .. introduce(master) }
    if token then
        headers[2] = "Authorization: Bearer " .. token
    end
    local function ask(path)
        return blocking_http.get(listener, path, headers)
    end

    local answer, err = ask("/v1/upstreams")
    if not answer or answer.status ~= 200 then
        ngx.log(ngx.ERR, name, " gives no table: ",
                err or "it answers " .. answer.status)
        return false
    end
    local beside = answer.headers[_M.introduction:lower()]
    -- our own workers answer when an upgraded nginx is reloaded
    if beside and match(beside, " (%S+)$") ~= master then
        note(beside)
    end
    local body = json.decode(answer.body)
    if body == nil or not fill(body, name) then
        return false
    end
    take_leases(body, ask)
    return true
end


--- Fills the table, which must be empty, from the generation that runs already,
-- if this nginx is being upgraded. In init no worker of ours accepts yet, so it
-- is the old ones that answer.
-- @param listeners of the admin API as nginx has them
-- @param token of the admin API, or nil
-- @param fill function(document, name) as snapshot.fill
-- @return whether it did
function _M.load(listeners, token, fill)
    -- nginx itself: the sockets that it hands over
    if not os.getenv("NGINX") then
        return false
    end
    for _, listener in ipairs(listeners) do
        if load_from(tostring(listener), token, fill) then
            return true
        end
    end
    return false
end


return _M
