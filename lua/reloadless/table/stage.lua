-- The change of one upstream: which texts it adds to the dict, and which of
-- those there it makes old. Reads only; the writer stores and publishes.

local dict = require("reloadless.table.dict")
local document = require("reloadless.table.document")
local heads = require("reloadless.table.head")
local json = require("reloadless.table.json")
local overrides = require("reloadless.table.overrides")
local pause = require("reloadless.shared.pause")
local sorted_keys = require("reloadless.shared.sorted_keys")
local reader = require("reloadless.table.read")

local ceil = math.ceil
local ipairs = ipairs
local min = math.min
local next = next
local null = ngx.null
local pairs = pairs

local _M = {}

-- So many peers may lie in a head, and in one chunk. Each chunk holds the peers
-- of a stretch of addresses: one that gets more is cut, one that has few goes
-- together with the next. So whatever is written, only the chunks around it are
-- laid anew, and room is needed for these alone.
local most = 64
local typical = 40
local few = 8


local function read_body(name, head, i)
    return head.body or dict.get_text(dict.chunk_key(name, head.ids[i]))
end


local function read_peers(name, head, i)
    return json.decode_peers(read_body(name, head, i))
end


-- @return the chunk in whose stretch an address lies
local function chunk_of(key, firsts)
    local low, high = 1, firsts and #firsts or 1
    while low < high do
        local middle = ceil((low + high) / 2)
        if firsts[middle] <= key then
            low = middle
        else
            high = middle - 1
        end
    end
    return low
end


local function new_stage(name)
    return { name = name, add = {}, drop = {}, added = 0, fresh = 0, takes = 0,
             frees = 0 }
end


local function add_text(staged, key, text)
    for at, piece in pairs(dict.cut(key, text)) do
        staged.add[at] = piece
        staged.takes = staged.takes + dict.room(at, piece)
    end
end


local function drop_text(staged, key)
    pause.after(few)
    local text = dict.get_text(key)
    for at, piece in pairs(dict.cut(key, text)) do
        staged.drop[#staged.drop + 1] = at
        staged.frees = staged.frees + dict.room(at, piece)
    end
end


-- @param ids of chunks that stay, or nil
local function drop_head(staged, name, head, ids)
    local stay = {}
    for _, id in ipairs(ids or {}) do
        stay[id] = true
    end
    for _, id in ipairs(head.ids or {}) do
        if not stay[id] then
            drop_text(staged, dict.chunk_key(name, id))
        end
    end
    drop_text(staged, dict.head_key(name, head.version))
end


-- Lays peers into chunks behind those that new has. All but the last get the
-- typical number: those that come one by one at the end leave no half ones.
local function lay(staged, new, peers)
    local keys = sorted_keys(peers)
    local chunks = #keys > most and ceil((#keys - few) / typical)
                   or min(#keys, 1)
    for i = 1, chunks do
        local from = (i - 1) * typical + 1
        local part = {}
        for at = from, i < chunks and i * typical or #keys do
            part[keys[at]] = peers[keys[at]]
        end
        new.laid = new.laid + 1
        local id = new.version .. ":" .. new.laid
        add_text(staged, dict.chunk_key(staged.name, id),
                 json.encode_peers(part))
        new.firsts[#new.firsts + 1], new.ids[#new.ids + 1] = keys[from], id
    end
end


-- @return whether anything is laid anew
local function lay_chunks(staged, new, head, contents)
    new.firsts, new.ids, new.laid = {}, {}, 0
    local name, ids = staged.name, head and head.ids
    local i, count = 1, ids and #ids or 1
    while i <= count do
        local peers = contents[i]
        if ids and (not peers
                    or json.encode_peers(peers) == read_body(name, head, i))
        then
            new.firsts[#new.firsts + 1] = head.firsts[i]
            new.ids[#new.ids + 1] = ids[i]
        else
            while i < count and next(peers) and #sorted_keys(peers) < few do
                i = i + 1
                for key, peer in pairs(contents[i]
                                       or read_peers(name, head, i))
                do
                    peers[key] = peer
                end
            end
            lay(staged, new, peers)
        end
        i = i + 1
    end
    return new.laid > 0 or #new.ids ~= count
end


-- @return the peers of all chunks, as text
local function whole_body(name, head, contents)
    local peers = {}
    for i = 1, head and head.ids and #head.ids or 1 do
        for key, peer in pairs(contents[i] or read_peers(name, head, i)) do
            peers[key] = peer
        end
    end
    return json.encode_peers(peers)
end


-- @param head the current one, or nil
-- @param contents by number of the chunk, the peers that it is to hold, where
--   these may be others than it holds; an upstream without chunks is one
-- @param count of all peers as they shall be
-- @param fresh how many of them are new
local function stage(name, head, settings, contents, count, fresh, version)
    local staged = new_stage(name)
    staged.added = count - (head and head.peers or -1)
    staged.fresh = fresh
    local new = { version = version, settings = settings, peers = count }
    local changed
    if count > most then
        changed = lay_chunks(staged, new, head, contents)
    else
        new.body = whole_body(name, head, contents)
        changed = not head or head.body ~= new.body
    end
    if not changed and head.settings == settings then
        return nil
    end

    add_text(staged, dict.head_key(name, version), heads.encode(new))
    if head then
        drop_head(staged, name, head, new.ids)
    end
    return staged
end


-- Peers given whole.
local function replace_peers(name, head, settings, peers, version)
    local firsts = head and head.firsts
    local contents, count = {}, 0
    for i = 1, firsts and #firsts or 1 do
        contents[i] = {}
    end
    for key, peer in pairs(peers) do
        count = count + 1
        contents[chunk_of(key, firsts)][key] = peer
        pause.after(0.5)
    end
    local fresh = count
    for i = 1, head and #contents or 0 do
        for key in pairs(read_peers(name, head, i)) do
            fresh = fresh - (contents[i][key] and 1 or 0)
        end
        pause.after(typical / 2)
    end

    return stage(name, head, settings, contents, count, fresh, version)
end


-- Peers given as a merge patch: reads and writes only their chunks.
local function patch_peers(name, head, settings, patch, version)
    local contents, count, fresh = {}, head.peers, 0
    for key, change in pairs(patch) do
        local i = chunk_of(key, head.firsts)
        local peers = contents[i] or read_peers(name, head, i)
        contents[i] = peers
        if change == null then
            count = count - (peers[key] and 1 or 0)
            peers[key] = nil
        else
            fresh = fresh + (peers[key] and 0 or 1)
            peers[key] = document.merge(peers[key] or {}, change)
        end
        pause.after(1)
    end

    return stage(name, head, settings, contents, count + fresh, fresh, version)
end


local function change_peers(job, head, settings, version)
    local name, peers = job.name, job.value.peers
    if head and not job.replace and peers ~= null then
        return patch_peers(name, head, settings, peers or {}, version)
    end

    if peers == nil or peers == null then
        peers = {}
    end
    if job.replace then
        return replace_peers(name, head, settings, peers, version)
    end
    -- a patch may hold null
    local whole = {}
    for key, peer in pairs(peers) do
        if peer ~= null then
            whole[key] = document.merge({}, peer)
        end
        pause.after(0.5)
    end
    return replace_peers(name, head, settings, whole, version)
end


local function remove(name, head)
    local staged = new_stage(name)
    staged.gone, staged.added = true, -1 - head.peers
    staged.is_kept = overrides.is_kept(json.decode(head.settings), nil)
    drop_head(staged, name, head)
    return staged
end


--- Stages the change of one upstream; nothing is written yet. An upstream that
-- held nothing but overrides goes with the last of them.
-- @param job as writer.write takes it
-- @param version that the table will have
-- @return { name =, gone = true when the upstream goes, next_end = when the
--   first of its overrides ends, is_kept = whether it changes what people
--   have said, add = { texts by key },
--   drop = { keys that are old once it is published }, added = peers more than
--   before, a new upstream counted as one, fresh = peers that are new, takes
--   and frees = the bytes of add and of drop }, or nil when it changes nothing
-- @return nil, { status, detail, pointer }: 422
function _M.change(job, version)
    local name, value = job.name, job.value
    local head = reader.head(name)
    if value == null then
        return head and remove(name, head)
    end

    local before = head and json.decode(head.settings)
    local base = not job.replace and before or {}
    local settings = document.merge(base, value)
    if not overrides.settle(settings, ngx.time()) and base.overrides
       and not next(settings) and head.peers == 0 and not value.peers
    then
        return remove(name, head)
    end
    local err = document.check_settings(settings, job.pointer)
    if err then
        return nil, err
    end

    local staged = change_peers(job, head, json.encode_settings(settings),
                                version)
    if staged then
        staged.next_end = overrides.next_end(settings)
        staged.is_kept = overrides.is_kept(before, settings)
    end
    return staged
end


return _M
