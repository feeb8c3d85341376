-- One upstream as one worker has it: built from the table, brought up to date
-- peer by peer, with the pickers of its tiers.

local address = require("reloadless.address")
local document = require("reloadless.document")
local round_robin = require("reloadless.picker.round_robin")
local upstreams = require("reloadless.table")

local pairs = pairs
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }


--- @param name of the upstream
-- @return it without peers: sync fills it
function _M.new(name)
    return setmetatable({
        name = name,
        seen = nil,             -- the table's version at the last sync
        have = nil,             -- what upstreams.read gave, bodies aside
        members = {},           -- by chunk: the fields of peers by address
        peers = {},             -- by address
        size = 0,               -- peers that may be picked
        tiers = { round_robin.new(), round_robin.new() },
    }, mt)
end


-- The tier that may give out the peer, or nil.
local function tier_of(peer)
    if peer.weight == 0 or peer.drain then
        return nil
    end
    return peer.backup and 2 or 1
end


local function place(self, peer, tier)
    local was = peer.tier
    if was and was ~= tier then
        self.tiers[was]:remove(peer)
        self.size = self.size - 1
        was = nil
    end
    if tier then
        self.tiers[tier]:set(peer, peer.weight)
        self.size = self.size + (was and 0 or 1)
    end
    peer.tier = tier
end


local function upsert(self, key, fields)
    local peer = self.peers[key]
    if not peer then
        local parsed = address.parse(key)
        peer = {
            key = key,
            upstream = self.name,
            host = parsed.host,
            port = parsed.port,
            active = 0,         -- requests that this worker has on it now
            requests = 0,       -- since the last flush of the counters
            failures = 0,
        }
        self.peers[key] = peer
    end

    peer.weight = fields.weight or 1
    peer.backup = fields.backup
    peer.drain = fields.drain
    place(self, peer, tier_of(peer))
end


local function apply(self, read)
    local gone = {}
    local function forget(members)
        for key in pairs(members or {}) do
            gone[key] = true
        end
    end
    if self.have and #self.have.versions ~= #read.versions then
        for _, members in pairs(self.members) do
            forget(members)
        end
        self.members = {}
    end
    for i in pairs(read.bodies) do
        forget(self.members[i])
    end

    for i, body in pairs(read.bodies) do
        self.members[i] = document.decode_peers(body)
        for key, fields in pairs(self.members[i]) do
            gone[key] = nil
            upsert(self, key, fields)
        end
    end
    for key in pairs(gone) do
        place(self, self.peers[key], nil)
        self.peers[key] = nil
    end

    read.bodies = nil
    self.have = read
    self.settings = document.decode(read.settings)
end


--- Brings the upstream to the table's version. Work is done for the peers
-- that changed; what the others have learnt stays.
-- @param version of the table
-- @return false when the table has no such upstream
function _M:sync(version)
    local current = upstreams.upstream_version(self.name)
    if not current then
        return false
    end

    if not self.have or self.have.version ~= current then
        local read = upstreams.read(self.name, self.have)
        if not read then
            return false
        end
        apply(self, read)
    end
    self.seen = version
    return true
end


--- @param tried set of peers that this request has tried, or nil
-- @return a peer: a backup only when no primary is left; nil when none is
function _M:pick(tried)
    local tiers = self.tiers
    return tiers[1]:pick(tried) or tiers[2]:pick(tried)
end


--- Whether any peer may be picked.
function _M:is_empty()
    return self.size == 0
end


return _M
