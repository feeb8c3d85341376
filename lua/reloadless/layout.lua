-- How the upstream table lies in the shared dict: its keys, and the texts under
-- them.
--
--   instance              random id, made when the dict is new
--   version               of the table: the one number read on each request
--   source, updated_at    who wrote last (1 nobody, 2 the snapshot, 3 the admin
--                         API), epoch seconds
--   u:<name>              version of the upstream's current head
--   h:<name>:<version>    head: settings, number of peers, and either the
--                         peers or the versions of the chunks that hold them
--   c:<name>:<version>:<i>  chunk i of the peers
--   h:…+<n>, c:…+<n>      piece n, from 2 on, of a long head or chunk
--   lock                  pid of the worker that writes
--   steal:<pid>           pid of the worker that takes the lock of a dead one
--
-- A change of one peer touches one chunk, for the writer and for each worker
-- that follows.

local concat = table.concat
local floor = math.floor
local format = string.format
local gmatch = string.gmatch
local match = string.match
local sub = string.sub
local tonumber = tonumber

local _M = {}

-- nginx puts a long value in pages side by side, and the free ones of a full
-- dict may all be apart. So longer texts lie in pieces, each of which fits in a
-- page of 4096 bytes together with its key and what nginx adds.
local piece_bytes = 3800

local dict = ngx.shared.reloadless


--- The key of an upstream's head.
function _M.head_key(name, version)
    return "h:" .. name .. ":" .. version
end


--- The key of chunk i of an upstream's peers.
function _M.chunk_key(name, version, i)
    return format("c:%s:%d:%d", name, version, i)
end


local function piece_key(key, i)
    return i == 1 and key or format("%s+%d", key, i)
end


--- Cuts a text as it lies in the dict.
-- @param key of the text
-- @return the pieces, by key
function _M.cut(key, text)
    local pieces = {}
    for i = 1, floor(#text / piece_bytes) + 1 do
        pieces[piece_key(key, i)] =
            sub(text, (i - 1) * piece_bytes + 1, i * piece_bytes)
    end
    return pieces
end


--- @param key of a text
-- @return the text, of all its pieces, or nil when one of them is not there
function _M.get_text(key)
    local pieces, i = {}, 0
    repeat
        i = i + 1
        pieces[i] = dict:get(piece_key(key, i))
        if not pieces[i] then
            return nil
        end
    until #pieces[i] < piece_bytes
    return concat(pieces)
end


--- The text of a head.
-- @param head { settings = text, peers = their number, and either versions =
--   { those of the chunks } or body = the peers as text }
function _M.encode_head(head)
    if head.versions then
        return concat({ head.settings, head.peers,
                        concat(head.versions, " ") }, "\n")
    end
    return concat({ head.settings, head.peers, "", head.body }, "\n")
end


local function decode_head(text)
    local settings, peers, versions, body =
        match(text, "^(.-)\n(%d+)\n([^\n]*)\n?(.*)$")
    local head = { settings = settings, peers = tonumber(peers) }
    if versions == "" then
        head.body = body
        return head
    end

    head.versions = {}
    for version in gmatch(versions, "%d+") do
        head.versions[#head.versions + 1] = tonumber(version)
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
