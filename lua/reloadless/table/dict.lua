-- The shared dict `reloadless`: its keys, and every call of it. No other file
-- knows how a key is written; who has one has it from here.
--
--   layout                number of this layout: another one is not read
--   instance              random id, made when the dict is new
--   version               of the table: the one number read on each request
--   source, updated_at    who wrote last (1 nobody, 2 the snapshot, 3 the admin
--                         API), epoch seconds
--   u:<name>              version of the upstream's current head; 0: published
--                         for nobody yet
--   h:<name>:<version>    head: see head.lua
--   c:<name>:<id>         chunk: some of its peers; the id is <version>:<i>,
--                         the i-th chunk of the write that made that version
--   h:…+<n>, c:…+<n>      piece n, from 2 on, of a long head or chunk
--   next_end              when the first override ends, epoch seconds, or
--                         infinite
--   kept, saved           the version of the last change of what people have
--                         said, and that which the state file has of it
--   lock                  process id of the worker that writes
--   steal:<id>            that of the one that takes the lock of a dead one
--   a:<owner>, w:<owner>  the agent that has the lease, and the last one that
--                         was refused: see admin/lease.lua
--   beside                see boot/generations.lua

local pause = require("reloadless.shared.pause")
local random_bytes = require("reloadless.shared.random_bytes")
local sorted_keys = require("reloadless.shared.sorted_keys")

local concat = table.concat
local find = string.find
local floor = math.floor
local format = string.format
local huge = math.huge
local ipairs = ipairs
local match = string.match
local sub = string.sub

local _M = {}

-- Goes up with each change of what lies in the dict and how: a reload may bring
-- this Lua to a dict that older or newer Lua has filled.
local layout = 1

local nginx_adds = 68           -- to each key and what it holds

local sources = { "empty", "snapshot", "admin" }

local dict = ngx.shared.reloadless
local get = dict and dict.get


--- The table's version: what each request compares.
function _M.version()
    return get(dict, "version")
end


--- Whose table it is: a random id, made with the dict.
function _M.instance()
    return dict:get("instance")
end


--- The table's ETag for a version of it.
function _M.etag(version)
    return format('"%s.%d"', _M.instance(), version)
end


--- Who wrote the table last: "empty" for nobody, "snapshot" or "admin".
-- @return the source, and when that was, in epoch seconds
function _M.last_write()
    return sources[dict:get("source")], dict:get("updated_at")
end


--- The bytes of the dict.
function _M.capacity()
    return dict:capacity()
end


--- The bytes of its whole free pages; within others more may be free.
function _M.free_space()
    return dict:free_space()
end


--- What is to be said before the dict is full: when less than a tenth of it is
-- free, beside what is kept for taking peers out.
-- @param reserve that is kept, in bytes
-- @return a text, or nil
function _M.warning(reserve)
    local free, all = dict:free_space(), dict:capacity()
    if free < all / 10 + reserve then
        return format("the shared dict is nearly full, %dk of %dk are free:"
                      .. " enlarge lua_shared_dict reloadless", free / 1024,
                      all / 1024)
    end
end


--- The key of an upstream's version.
function _M.version_key(name)
    return "u:" .. name
end


--- The key of an upstream's head.
function _M.head_key(name, version)
    return "h:" .. name .. ":" .. version
end


--- The key of a chunk of an upstream's peers.
function _M.chunk_key(name, id)
    return "c:" .. name .. ":" .. id
end


--- The key of the agent that has the lease of an owner.
function _M.lease_key(owner)
    return "a:" .. owner
end


--- The key of the last agent that was refused that lease.
function _M.refused_key(owner)
    return "w:" .. owner
end


--- The key of the other generation.
_M.beside_key = "beside"


-- @return what follows the prefix in each key that has it, sorted
local function behind(prefix)
    local found, length = {}, #prefix
    -- some 5 ms with 20,000 keys
    local keys = dict:get_keys(0)
    pause.now()
    for _, key in ipairs(keys) do
        if sub(key, 1, length) == prefix then
            found[sub(key, length + 1)] = true
        end
        pause.after(0.1)
    end
    return sorted_keys(found)
end


--- The owners of whom an agent has, or had just now, the lease.
function _M.owners()
    return behind("a:")
end


--- The version of one upstream, or nil when there is none.
function _M.upstream_version(name)
    local version = dict:get("u:" .. name)
    return version ~= 0 and version or nil
end


--- @return the names of all upstreams, sorted
function _M.names()
    local names = {}
    for _, name in ipairs(behind("u:")) do
        if _M.upstream_version(name) then
            names[#names + 1] = name
        end
        pause.after(0.2)
    end
    return names
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


--- @param key of a text that was cut
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


--- @return what lies under a key, or nil
function _M.get(key)
    return dict:get(key)
end


--- Puts a value under a key that is new.
-- @return whether there was room for it
function _M.add(key, value)
    return (dict:safe_add(key, value))
end


--- Puts a value under a key.
-- @param seconds after which it goes again, or nil
-- @return whether there was room for it
function _M.set(key, value, seconds)
    return (dict:safe_set(key, value, seconds))
end


--- Takes a key out.
function _M.delete(key)
    dict:delete(key)
end


--- Publishes what was added. It overwrites numbers in place, which cannot fail;
-- the table's version goes last.
-- @param changes as stage.change gives them
-- @param version that the table has then
-- @param source "snapshot" or "admin"
-- @return whether it changes what people have said
function _M.publish(changes, version, source)
    local is_kept = false
    -- first: one that is too early costs a look, one that is lost an end
    for _, staged in ipairs(changes) do
        if (staged.next_end or huge) < dict:get("next_end") then
            dict:set("next_end", staged.next_end)
        end
        is_kept = is_kept or staged.is_kept
    end
    for _, staged in ipairs(changes) do
        if staged.gone then
            dict:delete("u:" .. staged.name)
        else
            dict:set("u:" .. staged.name, version)
        end
    end
    dict:set("source", source == "snapshot" and 2 or 3)
    dict:set("updated_at", ngx.time())
    if is_kept then
        dict:set("kept", version)
    end
    dict:set("version", version)
    return is_kept
end


--- The version of the last change of what people have said: of the upstreams
-- made by hand, or of overrides.
function _M.kept()
    return dict:get("kept")
end


--- The version up to which the state file has it.
function _M.saved()
    return dict:get("saved")
end


--- Says up to which version the state file has it.
function _M.set_saved(version)
    dict:set("saved", version)
end


--- When the first override ends, in epoch seconds; infinite when none does.
function _M.next_end()
    return dict:get("next_end")
end


--- Says when the first override ends: for who holds the lock.
-- @param at epoch seconds, or infinite
function _M.set_next_end(at)
    dict:set("next_end", at)
end


--- Takes out what a write has left that ended halfway, and publishes what it
-- had changed.
-- @param named a table whose keys are those of all heads and chunks in use
function _M.mend(named)
    for _, key in ipairs(dict:get_keys(0)) do
        if find(key, "^[hc]:") and not named[match(key, "^[^+]+")]
           or find(key, "u:", 1, true) == 1 and dict:get(key) == 0
        then
            dict:delete(key)
        end
    end
    dict:set("kept", dict:incr("version", 1))
end


--- Takes the lock.
-- @param id of the process that takes it
-- @return whether it was free
function _M.lock(id)
    -- the slot is always to be had: only who holds the lock fills the dict
    return (dict:safe_add("lock", id))
end


--- @return the id of the process that has the lock, or nil
function _M.lock_holder()
    return dict:get("lock")
end


--- Takes the lock from a process that has died.
-- @param seconds for which no other may try
-- @return whether this one has it now
function _M.steal_lock(holder, id, seconds)
    if dict:safe_add("steal:" .. holder, id, seconds)
       -- a worker that was stopped meanwhile may come late
       and dict:get("lock") == holder
    then
        dict:set("lock", id)
        return true
    end
    return false
end


--- Gives the lock back.
function _M.unlock()
    dict:delete("lock")
end


--- Makes the first keys when the dict is new, or of another layout: then all
-- that was there is gone.
-- @return true when the table has never been written
-- @raise when there is no dict
function _M.init()
    if not dict then
        error("reloadless: nginx.conf lacks lua_shared_dict reloadless")
    end

    local found = dict:get("layout")
    if found ~= layout then
        if dict:get("version") then
            ngx.log(ngx.WARN, "reloadless: the shared dict is of layout ",
                    found or "0", " and this Lua of ", layout,
                    ": the table starts anew")
        end
        dict:flush_all()
        dict:flush_expired()
        local id = random_bytes(8):gsub(".", function(char)
            return format("%02x", char:byte())
        end)
        dict:set("instance", id)
        dict:set("source", 1)
        dict:set("updated_at", ngx.time())
        dict:set("version", 0)
        dict:set("layout", layout)
    end

    -- older Lua has no overrides
    dict:safe_add("next_end", huge)
    -- nor does it say what is kept: all may be
    dict:safe_add("kept", dict:get("version"))
    dict:safe_add("saved", 0)
    return dict:get("version") == 0
end


return _M
