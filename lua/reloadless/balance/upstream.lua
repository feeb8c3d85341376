-- One upstream as one worker has it: built from the table and brought up to
-- date peer by peer. What is known of the peers that stay is kept.

local cookies = require("reloadless.balance.cookie")
local complaint = require("reloadless.shared.complaint")
local dict = require("reloadless.table.dict")
local fitness = require("reloadless.balance.fitness")
local json = require("reloadless.table.json")
local list = require("reloadless.balance.picker.list")
local overrides = require("reloadless.table.overrides")
local peers = require("reloadless.balance.peer")
local reader = require("reloadless.table.read")
local template = require("reloadless.balance.template")

local huge = math.huge
local ipairs = ipairs
local md5 = ngx.md5
local next = next
local pairs = pairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

local timeouts = { "connect_timeout", "send_timeout", "read_timeout" }
-- What peers have that say nothing of it themselves.
local defaults = { "max_conns", "slow_start", "max_fails", "fail_timeout" }

local pickers = list.load()


--- @param name of the upstream
-- @return it without peers: sync fills it
function _M.new(name)
    return setmetatable({
        name = name,
        seen = nil,             -- the table's version at the last sync
        have = nil,             -- what reader.upstream gave, bodies aside
        settings = {},
        observe = false,        -- the function of its picker, if it has one
        key = false,            -- function that gives the text to hash
        cookie = false,         -- the variable of the sticky cookie
        new_cookie = false,     -- function that gives one
        max_tries = huge,
        has_timeouts = false,
        members = {},           -- by chunk's id: the fields of peers by address
        peers = {},             -- by address
        size = 0,               -- peers that take new traffic
        fitness = fitness.new(),
        paces = { mean = false },   -- of all its peers' answers, in seconds
        complain = complaint.every(1),
        told = false,           -- that a location lacks header()
        by_token = nil,         -- when sticky: peers by what the cookie holds
    }, mt)
end


local function takes_new_traffic(peer)
    return peer.weight > 0 and not peer.drain and not peer.down
end


local function leave(self, peer)
    if peer.is_in then
        peer.is_in = false
        self.size = self.size - 1
        self.fitness:leave(peer)
    end
end


-- A client whose cookie names the peer stays with it, unless it is down.
local function name_by_token(self, peer)
    if self.by_token then
        self.by_token[md5(peer.key)] = not peer.down and peer or nil
    end
end


local function new_peer(self, key)
    local peer = peers.new(self.name, key, self.paces)
    self.peers[key] = peer
    return peer
end


local function upsert(self, key, own, now)
    local peer = self.peers[key] or new_peer(self, key)
    local fields = overrides.over(own, self.settings, key)
    if peer.is_in
       and (peer.zone ~= fields.zone or peer.backup ~= fields.backup)
    then
        leave(self, peer)
    end

    local settings = self.settings
    peer.weight = fields.weight or 1
    peer.backup = fields.backup
    peer.drain = fields.drain
    peer.down = fields.down
    peer.zone = fields.zone
    peer.max_conns = fields.max_conns or settings.max_conns or 0
    peer.slow_start = fields.slow_start or settings.slow_start or 0
    peer.max_fails = fields.max_fails or settings.max_fails or 1
    peer.fail_timeout = fields.fail_timeout or settings.fail_timeout or 10
    name_by_token(self, peer)
    if not takes_new_traffic(peer) then
        return leave(self, peer)
    end

    if peer.is_in then
        return self.fitness:reweigh(peer, now)
    end
    peer.is_in = true
    self.size = self.size + 1
    self.fitness:join(peer, self.have ~= nil, now)
end


local function forget(self, key)
    local peer = self.peers[key]
    leave(self, peer)
    self.peers[key] = nil
    if self.by_token then
        self.by_token[md5(key)] = nil
    end
end


local function apply_peers(self, read, now)
    local old, members = self.members, {}
    for _, id in ipairs(read.ids) do
        members[id] = old[id]
    end
    local gone = {}
    for id, fields in pairs(old) do
        if not members[id] then
            for key in pairs(fields) do
                gone[key] = true
            end
        end
    end

    for id, body in pairs(read.bodies) do
        members[id] = json.decode_peers(body)
        for key, fields in pairs(members[id]) do
            gone[key] = nil
            upsert(self, key, fields, now)
        end
    end
    self.members = members
    for key in pairs(gone) do
        forget(self, key)
    end
end


-- Peers whose own fields stay, and that its settings make others.
local function upsert_again(self, before, settings, now)
    local all = false
    for _, name in ipairs(defaults) do
        all = all or before[name] ~= settings[name]
    end
    local old, new = before.overrides or {}, settings.overrides or {}
    if not all and not next(old) and not next(new) then
        return
    end

    for _, members in pairs(self.members) do
        for key, fields in pairs(members) do
            if all or old[key] or new[key] then
                upsert(self, key, fields, now)
            end
        end
    end
end


local function apply_settings(self, settings, now)
    local before = self.settings
    self.settings = settings
    local picker = pickers[settings.balance or "round_robin"]
    self.observe = picker.observe or false
    self.fitness:use(picker, settings.zone, now)
    for _, name in ipairs(timeouts) do
        -- 0 leaves nginx's own, and ngx.balancer would raise on it
        if settings[name] == 0 then
            settings[name] = nil
        end
    end
    self.has_timeouts = settings.connect_timeout or settings.send_timeout
                        or settings.read_timeout or false
    self.max_tries = settings.max_tries or huge
    self.key = settings.balance == "hash"
               and template.compile(settings.hash_key)

    self.cookie, self.new_cookie = cookies.of(settings.sticky)
    if not self.cookie then
        self.by_token = nil
    elseif not self.by_token then
        self.by_token = {}
        for _, peer in pairs(self.peers) do
            name_by_token(self, peer)
        end
    end
    upsert_again(self, before, settings, now)
end


--- Brings the upstream to the table's version. Work is done for the peers
-- that changed; what the others have learnt stays.
-- @param version of the table
-- @param now in seconds
-- @return false when the table has no such upstream
function _M:sync(version, now)
    local current = dict.upstream_version(self.name)
    if not current then
        return false
    end

    if not self.have or self.have.version ~= current then
        local read = reader.upstream(self.name, self.members)
        if not read then
            return false
        end
        if not self.have or self.have.settings ~= read.settings then
            apply_settings(self, json.decode(read.settings), now)
        end
        apply_peers(self, read, now)
        read.bodies = nil
        self.have = read
    end
    self.seen = version
    return true
end


--- @param token that a sticky cookie holds
-- @return the peer that it names, even one that takes no new traffic; nil when
--   that peer is gone, down, ejected or full
function _M:stuck(token)
    local peer = self.by_token[token]
    if peer and not peer.ejected and not peer.full then
        return peer
    end
end


--- Whether any peer takes new traffic.
function _M:is_empty()
    return self.size == 0
end


return _M
