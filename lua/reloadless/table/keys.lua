-- How the upstream table lies in the shared dict: its keys, and the texts under
-- them.
--
--   layout                number of this layout: another one is not read
--   instance              random id, made when the dict is new
--   version               of the table: the one number read on each request
--   source, updated_at    who wrote last (1 nobody, 2 the snapshot, 3 the admin
--                         API), epoch seconds
--   u:<name>              version of the upstream's current head
--   h:<name>:<version>    head: settings, number of peers, and either the
--                         peers or the chunks that hold them: of each its first
--                         address and its id, in the order of addresses
--   c:<name>:<id>         chunk: its peers; the id is <version>:<i>, the i-th
--                         chunk of the write that made that version
--   h:…+<n>, c:…+<n>      piece n, from 2 on, of a long head or chunk
--   lock                  process id of the worker that writes
--   steal:<id>            that of the one that takes the lock of a dead one
--   a:…, w:…, beside      see lease.lua and generations.lua
--
-- A change of one peer touches one chunk, for the writer and for each worker
-- that follows.

local concat = table.concat
local floor = math.floor
local format = string.format
local gmatch = string.gmatch
local ipairs = ipairs
local match = string.match
local sub = string.sub
local tonumber = tonumber

local _M = {}

local nginx_adds = 68           -- to each key and what it holds

local dict = ngx.shared.reloadless

--- Goes up with each change of what lies in the dict and how: a reload may
-- bring this Lua to a dict that older or newer Lua has filled.
_M.number = 1


--- The key of an upstream's head.
function _M.head_key(name, version)
    return "h:" .. name .. ":" .. version
end


--- The key of a chunk of an upstream's peers.
function _M.chunk_key(name, id)
    return "c:" .. name .. ":" .. id
end


-- nginx rounds what it keeps up to a power of two, and beyond half a page of
-- 4096 bytes to whole pages, side by side; the free ones of a full dict may all
-- be apart. So longer texts lie in pieces of a quarter of a page, with key and
-- all: the place of one that has gone fits any other.
-- See docs/discoveries/shared-dict-room.md.
-- @return the most bytes in a piece
local function piece_bytes(key)
    return 1024 - nginx_adds - #key - #"+1000"
end


local function piece_key(key, i)
    return i == 1 and key or format("%s+%d", key, i)
end


--- Cuts a text as it lies in the dict.
-- @param key of the text
-- @return the pieces, by key
function _M.cut(key, text)
    local pieces, most = {}, piece_bytes(key)
    for i = 1, floor(#text / most) + 1 do
        pieces[piece_key(key, i)] = sub(text, (i - 1) * most + 1, i * most)
    end
    return pieces
end


--- What a piece takes in the dict, in bytes, before nginx rounds it up.
function _M.room(key, piece)
    return #key + #piece + nginx_adds
end


--- @param key of a text
-- @return the text, of all its pieces, or nil when one of them is not there
function _M.get_text(key)
    local pieces, most, i = {}, piece_bytes(key), 0
    repeat
        i = i + 1
        pieces[i] = dict:get(piece_key(key, i))
        if not pieces[i] then
            return nil
        end
    until #pieces[i] < most
    return concat(pieces)
end


--- The text of a head.
-- @param head { settings = text, peers = their number, and either body = the
--   peers as text, or firsts and ids = the first address and the id of each
--   chunk }
function _M.encode_head(head)
    local chunks = {}
    for i, id in ipairs(head.ids or {}) do
        chunks[i] = head.firsts[i] .. " " .. id
    end
    return concat({ head.settings, head.peers, concat(chunks, " "), head.body },
                  "\n")
end


local function decode_head(text)
    local settings, peers, chunks, body =
        match(text, "^(.-)\n(%d+)\n([^\n]*)\n?(.*)$")
    local head = { settings = settings, peers = tonumber(peers) }
    if chunks == "" then
        head.body = body
        return head
    end

    head.firsts, head.ids = {}, {}
    for first, id in gmatch(chunks, "(%S+) (%S+)") do
        head.firsts[#head.firsts + 1] = first
        head.ids[#head.ids + 1] = id
    end
    return head
end


--- The current head of an upstream.
-- @return the head as encode_head takes it, and its version; nil when there is
--   no such upstream
function _M.read_head(name)
    -- a writer may drop the head between the two reads: then there is a newer
    for _ = 1, 100 do
        local version = dict:get("u:" .. name)
        if not version or version == 0 then
            return nil
        end

        local text = _M.get_text(_M.head_key(name, version))
        if text then
            local head = decode_head(text)
            head.version = version
            return head
        end
    end
end


return _M
