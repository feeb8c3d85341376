-- The change of one upstream: which texts it adds to the dict, and which of
-- those there it makes old. Reads only; the writer stores and publishes.

local document = require("reloadless.document")
local layout = require("reloadless.layout")

local crc32 = ngx.crc32_short
local ipairs = ipairs
local null = ngx.null
local pairs = pairs

local _M = {}

-- Peers of one head up to this number stay in it; beyond, chunks hold half of
-- it on average, and are laid anew when they hold a quarter or twice as much.
local inline_peers = 64


local function count_chunks(peers, current)
    if peers <= inline_peers then
        return 1
    end
    if current > 1 and peers <= inline_peers * current
       and peers >= inline_peers / 8 * current
    then
        return current
    end

    local chunks = 2
    while peers > inline_peers / 2 * chunks do
        chunks = chunks * 2
    end
    return chunks
end


local function chunk_of(key, chunks)
    return crc32(key) % chunks + 1
end


local function group(peers, chunks)
    local groups = {}
    for i = 1, chunks do
        groups[i] = {}
    end
    for key, peer in pairs(peers) do
        groups[chunk_of(key, chunks)][key] = peer
    end
    return groups
end


local function read_body(name, head, i)
    if not head.versions then
        return head.body
    end
    return layout.get_text(layout.chunk_key(name, head.versions[i], i))
end


local function all_peers(name, head)
    local peers = {}
    for i = 1, head.versions and #head.versions or 1 do
        local part = document.decode_peers(read_body(name, head, i))
        for key, peer in pairs(part) do
            peers[key] = peer
        end
    end
    return peers
end


local function new_stage(name)
    return { name = name, add = {}, drop = {}, added = 0 }
end


local function add_text(staged, key, text)
    for at, piece in pairs(layout.cut(key, text)) do
        staged.add[at] = piece
    end
end


local function drop_text(staged, key)
    local text = layout.get_text(key)
    for at in pairs(layout.cut(key, text)) do
        staged.drop[#staged.drop + 1] = at
    end
end


-- @param head the current one, or nil
local function stage(name, head, settings, chunks, bodies, peers, version)
    local staged = new_stage(name)
    staged.added = peers - (head and head.peers or -1)
    local old = head and head.versions or {}
    local new = { settings = settings, peers = peers }

    if chunks == 1 then
        new.body = bodies[1]
    else
        new.versions = {}
        for i = 1, chunks do
            new.versions[i] = bodies[i] and version or old[i]
            if bodies[i] then
                add_text(staged, layout.chunk_key(name, version, i), bodies[i])
            end
        end
    end
    add_text(staged, layout.head_key(name, version), layout.encode_head(new))

    if head then
        for i, was in ipairs(old) do
            if not (new.versions and new.versions[i] == was) then
                drop_text(staged, layout.chunk_key(name, was, i))
            end
        end
        drop_text(staged, layout.head_key(name, head.version))
    end

    return staged
end


-- Peers given whole: keeps the chunks that stay equal.
local function replace_peers(name, head, settings, peers, version)
    local count = 0
    for _ in pairs(peers) do
        count = count + 1
    end

    local current = head and head.versions and #head.versions or 1
    local chunks = count_chunks(count, current)
    local comparable = head and chunks == current
    local bodies, changed = {}, false
    for i, part in ipairs(group(peers, chunks)) do
        local body = document.encode_peers(part)
        local is_same = comparable and body == read_body(name, head, i)
        if not is_same or chunks == 1 then
            bodies[i] = body
        end
        changed = changed or not is_same
    end
    if not changed and head.settings == settings then
        return nil
    end

    return stage(name, head, settings, chunks, bodies, count, version)
end


-- Peers given as a merge patch: reads and writes only their chunks.
local function patch_peers(name, head, settings, patch, version)
    local current = head.versions and #head.versions or 1
    local parts, count = {}, head.peers
    for key, change in pairs(patch) do
        local i = chunk_of(key, current)
        parts[i] = parts[i] or document.decode_peers(read_body(name, head, i))
        local part = parts[i]
        if change == null then
            count = count - (part[key] and 1 or 0)
            part[key] = nil
        else
            count = count + (part[key] and 0 or 1)
            part[key] = document.merge(part[key] or {}, change)
        end
    end

    if count_chunks(count, current) ~= current then
        local peers = {}
        for key, peer in pairs(all_peers(name, head)) do
            if patch[key] ~= null then
                peers[key] = peer
            end
        end
        for _, part in pairs(parts) do
            for key, peer in pairs(part) do
                peers[key] = peer
            end
        end
        return replace_peers(name, head, settings, peers, version)
    end

    local bodies, changed = {}, head.settings ~= settings
    for i, part in pairs(parts) do
        local body = document.encode_peers(part)
        if body ~= read_body(name, head, i) then
            bodies[i] = body
            changed = true
        end
    end
    if not changed then
        return nil
    end
    if current == 1 then
        bodies[1] = bodies[1] or head.body
    end

    return stage(name, head, settings, current, bodies, count, version)
end


--- Stages the change of one upstream; nothing is written yet.
-- @param job as writer.write takes it
-- @param version that the table will have
-- @return { name =, gone = true when the upstream goes, add = { texts by key },
--   drop = { keys that are old once it is published }, added = peers more than
--   before, a new upstream counted as one }, or nil when it changes nothing
-- @return nil, { status, detail, pointer }: 422
function _M.change(job, version)
    local name, value = job.name, job.value
    local head = layout.read_head(name)
    if value == null then
        if not head then
            return nil
        end
        local staged = new_stage(name)
        staged.gone, staged.added = true, -1 - head.peers
        for i, was in ipairs(head.versions or {}) do
            drop_text(staged, layout.chunk_key(name, was, i))
        end
        drop_text(staged, layout.head_key(name, head.version))
        return staged
    end

    local base = {}
    if head and not job.replace then
        base = document.decode(head.settings)
    end
    local settings = document.merge(base, value)
    local err = document.check_settings(settings, job.pointer)
    if err then
        return nil, err
    end

    settings = document.encode_settings(settings)
    if not head or job.replace or value.peers == null then
        local peers = value.peers
        if peers == nil or peers == null then
            peers = {}
        end
        local whole = {}
        for key, peer in pairs(peers) do
            if peer ~= null then
                whole[key] = document.merge({}, peer)
            end
        end
        return replace_peers(name, head, settings, whole, version)
    end

    return patch_peers(name, head, settings, value.peers or {}, version)
end


return _M
