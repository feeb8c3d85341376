-- Tiers around any picker: the peers of the preferred zone while enough of
-- them are fit, then all primaries, then backups.

local bag = require("reloadless.structure.bag")

local find_outside = bag.find_outside
local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- Below this share of its zone's peers being fit, requests go to all zones:
-- the few that are left would be overrun.
local enough = 0.5


--- @param picker a module of picker/list
-- @param zone the preferred zone, or nil
-- @return tiers without peers
function _M.new(picker, zone)
    return setmetatable({
        zone = zone,
        near = picker.new(),
        primary = picker.new(),
        backup = picker.new(),
        -- the peers in each of them
        near_peers = bag.new(),
        primary_peers = bag.new(),
        backup_peers = bag.new(),
        pick_from = picker.pick,
        updates = picker.update ~= nil,
        fit = {},               -- by peer: whether it may be picked
        near_known = 0,
        near_fit = 0,
    }, mt)
end


local function is_near(self, peer)
    return self.zone ~= nil and peer.zone == self.zone and not peer.backup
end


local function count(self, peer, known, fit)
    if is_near(self, peer) then
        self.near_known = self.near_known + known
        self.near_fit = self.near_fit + fit
    end
end


--- Makes a peer one to be picked, with the weight (above 0).
function _M:put(peer, weight)
    local was = self.fit[peer]
    if not was then
        count(self, peer, was == nil and 1 or 0, 1)
        self.fit[peer] = true
    end

    if peer.backup then
        self.backup_peers:add(peer)
        return self.backup:set(peer, weight)
    end
    self.primary_peers:add(peer)
    self.primary:set(peer, weight)
    if is_near(self, peer) then
        self.near_peers:add(peer)
        self.near:set(peer, weight)
    end
end


--- Keeps a peer from being picked; it goes on to count as one of its zone.
function _M:rest(peer)
    local was = self.fit[peer]
    if was == false then
        return
    end

    count(self, peer, was == nil and 1 or 0, was and -1 or 0)
    self.fit[peer] = false
    self.near:remove(peer)
    self.near_peers:remove(peer)
    self.primary:remove(peer)
    self.primary_peers:remove(peer)
    self.backup:remove(peer)
    self.backup_peers:remove(peer)
end


--- Forgets a peer. Its zone and its being a backup must not change before.
function _M:drop(peer)
    if self.fit[peer] ~= nil then
        self:rest(peer)
        count(self, peer, -1, 0)
        self.fit[peer] = nil
    end
end


--- Tells that the number of a peer's requests has changed.
function _M:update(peer)
    if not self.updates then
        return
    elseif peer.backup then
        return self.backup:update(peer)
    end
    self.primary:update(peer)
    if is_near(self, peer) then
        self.near:update(peer)
    end
end


-- As pick, for a retry. A picker does not look for long among peers that were
-- tried: then any other is as good.
local function pick_other(self, tried, key)
    local fit, pick_from = self.near_fit, self.pick_from
    return fit > 0 and fit >= enough * self.near_known
           and (pick_from(self.near, tried, key)
                or find_outside(self.near_peers, tried))
           or pick_from(self.primary, tried, key)
           or find_outside(self.primary_peers, tried)
           or pick_from(self.backup, tried, key)
           or find_outside(self.backup_peers, tried)
end


--- @param tried set of peers that must not be picked, or nil. It belongs to one
--   request, and what else is in it to the tiers
-- @param key what a hash picker hashes
-- @return a peer, or nil when none is fit
function _M:pick(tried, key)
    if tried then
        return pick_other(self, tried, key)
    end
    local fit, pick_from = self.near_fit, self.pick_from
    return fit > 0 and fit >= enough * self.near_known
           and pick_from(self.near, nil, key)
           or pick_from(self.primary, nil, key)
           or pick_from(self.backup, nil, key)
end


return _M
