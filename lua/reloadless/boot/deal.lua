-- What of a table is loaded when not all of it fits: peers are dealt like
-- cards, one to each upstream, then a second to each that has one, and so on.
-- So no upstream goes without as long as another has two. Pure.

local ipairs = ipairs
local pairs = pairs
local sort = table.sort

local _M = {}


local function takes_new_traffic(peer)
    return peer.weight ~= 0 and not peer.drain and not peer.down
end


-- Those that take new traffic first.
local function order(peers)
    local keys = {}
    for key in pairs(peers) do
        keys[#keys + 1] = key
    end
    sort(keys, function(a, b)
        local first = takes_new_traffic(peers[a])
        if first ~= takes_new_traffic(peers[b]) then
            return first
        end
        return a < b
    end)
    return keys
end


--- @param jobs as writer.write takes them, each with an upstream given whole
-- @return cards { job, key } in the order in which they are dealt; key is nil
--   for an upstream without peers
function _M.cards(jobs)
    local players = {}
    for i, job in ipairs(jobs) do
        players[i] = { job = job, keys = order(job.value.peers or {}) }
    end
    sort(players, function(a, b)
        return a.job.name < b.job.name
    end)

    local cards, turn = {}, 1
    while #players > 0 do
        local left = {}
        for _, player in ipairs(players) do
            cards[#cards + 1] = { job = player.job, key = player.keys[turn] }
            if player.keys[turn + 1] then
                left[#left + 1] = player
            end
        end
        players, turn = left, turn + 1
    end
    return cards
end


local function without_peers(upstream)
    local copy = {}
    for name, value in pairs(upstream) do
        copy[name] = value
    end
    copy.peers = {}
    return copy
end


--- @param count how many cards are dealt
-- @return jobs with the peers that are on them
function _M.jobs(cards, count)
    local jobs, dealt = {}, {}
    for i = 1, count do
        local job, key = cards[i].job, cards[i].key
        local part = dealt[job]
        if not part then
            part = { name = job.name, value = without_peers(job.value),
                     replace = true, pointer = job.pointer }
            dealt[job] = part
            jobs[#jobs + 1] = part
        end
        if key then
            part.value.peers[key] = job.value.peers[key]
        end
    end
    return jobs
end


--- @param count how many cards are dealt
-- @return a line for each upstream that misses peers or is missing, how many
--   peers there are, and how many of them are not dealt
function _M.left_out(cards, count)
    local lines, all, gone = {}, {}, {}
    local peers, missing = 0, 0
    for i, card in ipairs(cards) do
        local job = card.job
        local is_peer = card.key and 1 or 0
        peers = peers + is_peer
        all[job] = (all[job] or 0) + is_peer
        if i > count then
            missing = missing + is_peer
            if not gone[job] then
                gone[#gone + 1] = job
            end
            gone[job] = (gone[job] or 0) + is_peer
        end
    end

    for i, job in ipairs(gone) do
        if gone[job] == all[job] then
            lines[i] = job.name .. " is left out"
        else
            lines[i] = job.name .. ": " .. gone[job] .. " of " .. all[job]
                       .. " peers are left out"
        end
    end
    return lines, peers, missing
end


return _M
