-- Overrides: what a person says of a peer, above what whoever manages the
-- upstream says. They lie in the settings of the upstream, by address, and have
-- the fields of a peer beside their end and who said why. Pure.

local fields = require("reloadless.table.fields")
local json = require("reloadless.table.json")

local huge = math.huge
local ipairs = ipairs
local min = math.min
local next = next
local pairs = pairs

local _M = {}

--- So many an upstream may have: they are written with each change of it.
_M.most = 128


local function says_something(override)
    for _, field in ipairs(fields.peer) do
        if override[field.name] ~= nil then
            return true
        end
    end
    return false
end


local function is_over(override, now)
    return override.expires_at ~= nil and override.expires_at <= now
end


--- Takes out of an upstream's settings the overrides that have ended, and those
-- that say nothing of a peer any more.
-- @param now in epoch seconds
-- @return whether any is left
function _M.settle(settings, now)
    local kept = {}
    for key, override in pairs(settings.overrides or {}) do
        if says_something(override) and not is_over(override, now) then
            kept[key] = override
        end
    end
    settings.overrides = next(kept) and kept or nil
    return settings.overrides ~= nil
end


--- @return when the first override of an upstream's settings ends, in epoch
-- seconds; infinite when none does
function _M.next_end(settings)
    local first = huge
    for _, override in pairs(settings.overrides or {}) do
        first = min(first, override.expires_at or huge)
    end
    return first
end


--- @return how many overrides an upstream's settings have
function _M.count(settings)
    local count = 0
    for _ in pairs(settings.overrides or {}) do
        count = count + 1
    end
    return count
end


--- @param before an upstream's settings, or nil when there was none
-- @param after its settings now, or nil when there is none
-- @return whether a change of it changes what people have said: any of an
--   upstream made by hand, of an agent's that of its overrides
function _M.is_kept(before, after)
    if before and not before.owner or after and not after.owner then
        return true
    end
    local function text(settings)
        return json.encode_settings({
            overrides = settings and settings.overrides,
        })
    end
    return text(before) ~= text(after)
end


--- A peer as it is with what a person says of it.
-- @param peer its fields; they stay as they are
-- @param settings of its upstream
-- @param key its address
function _M.over(peer, settings, key)
    local override = settings.overrides and settings.overrides[key]
    if not override then
        return peer
    end

    local merged = {}
    for name, value in pairs(peer) do
        merged[name] = value
    end
    for name, value in pairs(override) do
        merged[name] = value
    end
    return merged
end


return _M
