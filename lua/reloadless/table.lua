-- The upstream table in the shared dict: the only reader and writer of its
-- keys.
--
--   instance              random id, made when the dict is new
--   version               of the table: the one number read on each request
--   source, updated_at    who wrote last (index into sources), epoch seconds
--   u:<name>              version of the upstream's current head
--   h:<name>:<version>    head: settings, number of peers, and either the
--                         peers or the versions of the chunks that hold them
--   c:<name>:<version>:<i>  chunk i of the peers
--   h:…+<n>, c:…+<n>      piece n, from 2 on, of a long head or chunk
--   lock                  pid of the worker that writes
--
-- A write stages new heads and chunks beside the old ones, which can fail and
-- is then undone; it publishes by overwriting numbers in place, which cannot
-- fail; the table's version goes last. A change of one peer touches one chunk,
-- for the writer and for each worker that follows.

local document = require("reloadless.document")
local process = require("reloadless.process")

local concat = table.concat
local crc32 = ngx.crc32_short
local find = string.find
local floor = math.floor
local format = string.format
local gmatch = string.gmatch
local ipairs = ipairs
local match = string.match
local min = math.min
local next = next
local null = ngx.null
local pairs = pairs
local pcall = pcall
local sort = table.sort
local sub = string.sub
local tonumber = tonumber

local _M = {}

-- Peers of one head up to this number stay in it; beyond, chunks hold half of
-- it on average, and are laid anew when they hold a quarter or twice as much.
local inline_peers = 64

-- nginx puts a long value in pages side by side, and the free ones of a full
-- dict may all be apart. So longer texts lie in pieces, each of which fits in a
-- page of 4096 bytes together with its key and what nginx adds.
local piece_bytes = 3800

-- Whole pages that only writes which shrink the table may use, so that a full
-- dict can still lose a peer.
local reserve = 64 * 1024

local lock_seconds = 5
local sources = { "empty", "snapshot", "admin" }

local dict


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


local function head_key(name, version)
    return "h:" .. name .. ":" .. version
end


local function chunk_key(name, version, i)
    return format("c:%s:%d:%d", name, version, i)
end


local function piece_key(key, i)
    return i == 1 and key or format("%s+%d", key, i)
end


-- @return the text and its number of pieces, or nil
local function get_text(key)
    local pieces, i = {}, 0
    repeat
        i = i + 1
        pieces[i] = dict:get(piece_key(key, i))
        if not pieces[i] then
            return nil
        end
    until #pieces[i] < piece_bytes
    return concat(pieces), i
end


-- head = settings text, peers, and versions of the chunks or the one body
local function encode_head(head)
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


local function read_head(name)
    -- a writer may drop the head between the two reads: then there is a newer
    for _ = 1, 100 do
        local version = dict:get("u:" .. name)
        if not version or version == 0 then
            return nil
        end

        local text = get_text(head_key(name, version))
        if text then
            local head = decode_head(text)
            head.version = version
            return head
        end
    end
end


--- The bodies of an upstream's chunks that are not those the caller has.
-- @param name of the upstream
-- @param have { version =, versions = { chunk versions } }, or nil
-- @return { version, settings, peers, versions, bodies = { [i] = text } }:
--   versions holds one per chunk, the chunks of equal version are left out of
--   bodies; nil when there is no such upstream
function _M.read(name, have)
    for _ = 1, 100 do
        local head = read_head(name)
        if not head then
            return nil
        end
        if not head.versions then
            head.versions = { head.version }
            head.bodies = { head.body }
            return head
        end

        local bodies, whole = {}, true
        local known = have and #have.versions == #head.versions
                      and have.versions or {}
        for i, version in ipairs(head.versions) do
            if version ~= known[i] then
                bodies[i] = get_text(chunk_key(name, version, i))
                whole = whole and bodies[i] ~= nil
            end
        end
        if whole then
            head.bodies = bodies
            return head
        end
    end
end


--- The table's version: what each request compares.
function _M.version()
    return dict:get("version")
end


--- The version of one upstream, or nil when there is none.
function _M.upstream_version(name)
    local version = dict:get("u:" .. name)
    return version ~= 0 and version or nil
end


--- The table's ETag for a version of it.
function _M.etag(version)
    return format('"%s.%d"', dict:get("instance"), version)
end


--- @return the names of all upstreams, sorted
function _M.names()
    local names = {}
    for _, key in ipairs(dict:get_keys(0)) do
        if find(key, "u:", 1, true) == 1 and dict:get(key) ~= 0 then
            names[#names + 1] = sub(key, 3)
        end
    end
    sort(names)
    return names
end


-- @return one upstream as JSON, or nil
local function upstream_json(name)
    local read = _M.read(name)
    if not read then
        return nil
    end

    local bodies = {}
    for _, body in ipairs(read.bodies) do
        if body ~= "" then
            bodies[#bodies + 1] = body
        end
    end
    return sub(read.settings, 1, -2) .. (read.settings ~= "{}" and "," or "")
           .. '"peers":{' .. concat(bodies, ",") .. "}}"
end


-- @return the whole document as JSON
local function document_json()
    local parts = {}
    for _, name in ipairs(_M.names()) do
        parts[#parts + 1] = '"' .. name .. '":' .. upstream_json(name)
    end
    return '{"upstreams":{' .. concat(parts, ",") .. "}}"
end


--- Facts about the table for the status page.
function _M.status()
    return {
        instance = dict:get("instance"),
        version = dict:get("version"),
        source = sources[dict:get("source")],
        updated_at = dict:get("updated_at"),
        capacity = dict:capacity(),
        free_space = dict:free_space(),
    }
end


-- A write that ended halfway may have left some upstreams new under the old
-- version, or staged keys that nothing names.
local function mend()
    local named = {}
    for _, name in ipairs(_M.names()) do
        local head = read_head(name)
        if head then
            named[head_key(name, head.version)] = true
            for i, version in ipairs(head.versions or {}) do
                named[chunk_key(name, version, i)] = true
            end
        end
    end
    for _, key in ipairs(dict:get_keys(0)) do
        if find(key, "^[hc]:") and not named[match(key, "^[^+]+")]
           or find(key, "u:", 1, true) == 1 and dict:get(key) == 0
        then
            dict:delete(key)
        end
    end
    dict:incr("version", 1)
end


-- @return whether it was had, and whether the worker that held it has died
local function lock()
    local pid = ngx.worker.pid()
    local deadline = ngx.now() + lock_seconds
    repeat
        -- the slot is always to be had: only who holds the lock fills the dict
        local ok = dict:safe_add("lock", pid)
        if ok then
            return true
        end

        local holder = dict:get("lock")
        if holder and not process.is_alive(holder)
           and dict:safe_add("steal:" .. holder, pid, lock_seconds)
        then
            dict:set("lock", pid)
            return true, true
        end

        if ngx.get_phase() == "init" then
            break
        end
        ngx.sleep(0.001)
    until ngx.now() > deadline

    return false
end


-- Calls f while no other worker writes.
-- @return what f returns
-- @return nil, { status, detail }: 500 or 503
local function exclusively(f, ...)
    local locked, orphaned = lock()
    if not locked then
        return nil, { status = 503, detail = "another write is going on" }
    end

    local ok, result, err = true, nil, nil
    if orphaned then
        ok, result = pcall(mend)
    end
    if ok then
        ok, result, err = pcall(f, ...)
    end
    if not ok then
        ngx.log(ngx.ERR, "reloadless: ", result)
        pcall(mend)
        result, err = nil, { status = 500, detail = "see nginx's error log" }
    end
    dict:delete("lock")
    return result, err
end


-- One upstream of a write: the texts to add, by key, the keys that are old once
-- it is published, and by how many bytes it grows.
local function new_stage(name)
    return { name = name, add = {}, drop = {}, growth = 0 }
end


local function add_text(staged, key, text)
    for i = 1, floor(#text / piece_bytes) + 1 do
        staged.add[piece_key(key, i)] =
            sub(text, (i - 1) * piece_bytes + 1, i * piece_bytes)
    end
    staged.growth = staged.growth + #text
end


local function drop_text(staged, key)
    local text, pieces = get_text(key)
    for i = 1, pieces do
        staged.drop[#staged.drop + 1] = piece_key(key, i)
    end
    staged.growth = staged.growth - #text
end


-- @param head the current one, or nil
local function stage(name, head, settings, chunks, bodies, peers, version)
    local staged = new_stage(name)
    local old = head and head.versions or {}
    local new = { settings = settings, peers = peers }

    if chunks == 1 then
        new.body = bodies[1]
    else
        new.versions = {}
        for i = 1, chunks do
            new.versions[i] = bodies[i] and version or old[i]
            if bodies[i] then
                add_text(staged, chunk_key(name, version, i), bodies[i])
            end
        end
    end
    add_text(staged, head_key(name, version), encode_head(new))

    if head then
        for i, was in ipairs(old) do
            if not (new.versions and new.versions[i] == was) then
                drop_text(staged, chunk_key(name, was, i))
            end
        end
        drop_text(staged, head_key(name, head.version))
    end

    return staged
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
    return get_text(chunk_key(name, head.versions[i], i))
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


-- Peers given whole: keeps the chunks that stay equal.
local function replace_peers(name, head, settings, peers, version)
    local count = 0
    for _ in pairs(peers) do
        count = count + 1
    end

    local current = head and head.versions and #head.versions or 1
    local chunks = count_chunks(count, current)
    local comparable = head and chunks == current
    local bodies, changed = {}, not comparable
    for i, part in ipairs(group(peers, chunks)) do
        local body = document.encode_peers(part)
        if not comparable or chunks == 1 or body ~= read_body(name, head, i)
        then
            bodies[i] = body
        end
        if comparable and body ~= read_body(name, head, i) then
            changed = true
        end
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


-- @return the staged change of one upstream, or nil when it changes nothing
-- @return nil, error
local function prepare(job, version)
    local name, value = job.name, job.value
    local head = read_head(name)
    if value == null then
        if not head then
            return nil
        end
        local staged = new_stage(name)
        staged.gone = true
        for i, was in ipairs(head.versions or {}) do
            drop_text(staged, chunk_key(name, was, i))
        end
        drop_text(staged, head_key(name, head.version))
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


local function store(changes)
    local growth = 0
    for _, staged in ipairs(changes) do
        growth = growth + staged.growth
    end

    local least = growth > 0 and min(reserve, dict:capacity() / 8) or 0
    local done, fits = {}, true
    local function put(key, value)
        fits = fits and dict:safe_add(key, value)
        if fits then
            done[#done + 1] = key
            fits = dict:free_space() >= least
        end
    end
    for _, staged in ipairs(changes) do
        for key, text in pairs(staged.add) do
            put(key, text)
        end
        if not staged.gone and not dict:get("u:" .. staged.name) then
            -- 0: there, but published for nobody yet
            put("u:" .. staged.name, 0)
        end
    end
    if fits then
        return true
    end

    for _, key in ipairs(done) do
        dict:delete(key)
    end
    return nil
end


local function write(jobs, options)
    local current = dict:get("version")
    if options.if_match and not options.if_match(_M.etag(current)) then
        return nil, { status = 412, detail = "the table is at "
                                             .. _M.etag(current) }
    end

    local version = current + 1
    local changes = {}
    local function add(job)
        local staged, err = prepare(job, version)
        changes[#changes + 1] = staged
        return err
    end

    local given = {}
    for _, job in ipairs(jobs) do
        given[job.name] = true
        local err = add(job)
        if err then
            return nil, err
        end
    end
    if options.whole then
        for _, name in ipairs(_M.names()) do
            if not given[name] then
                add({ name = name, value = null })
            end
        end
    end

    if not next(changes) then
        return { version = current, changed = {} }
    end
    if not store(changes) then
        return nil, { status = 507,
                      detail = "the shared dict is full: enlarge"
                               .. " lua_shared_dict reloadless" }
    end

    local changed = {}
    for i, staged in ipairs(changes) do
        changed[i] = staged.name
        if staged.gone then
            dict:delete("u:" .. staged.name)
        else
            dict:set("u:" .. staged.name, version)
        end
    end
    dict:set("source", options.source == "snapshot" and 2 or 3)
    dict:set("updated_at", ngx.time())
    dict:set("version", version)

    for _, staged in ipairs(changes) do
        for _, key in ipairs(staged.drop) do
            dict:delete(key)
        end
    end

    sort(changed)
    return { version = version, changed = changed }
end


--- Applies checked changes, all or none (document.check has passed on each).
-- @param jobs array of { name, value, replace, pointer }: value is an upstream,
--   a merge patch of one, or ngx.null to remove it; replace is true for a PUT
-- @param options { if_match = function(etag) → boolean, or nil;
--   whole = true to remove every upstream that no job names;
--   source = "snapshot" or "admin" }
-- @return { version =, changed = { names } }; version has not moved when
--   changed is empty
-- @return nil, { status, detail, pointer }: 412, 422, 500, 503 or 507; nothing
--   has changed
function _M.write(jobs, options)
    return exclusively(write, jobs, options)
end


--- The document, or one upstream of it, as one write has left it.
-- @param name of the upstream, or nil for the whole document
-- @return { json =, version = }: json is nil when there is no such upstream
-- @return nil, { status, detail }: 500 or 503
function _M.show(name)
    local read = name and upstream_json or document_json
    return exclusively(function()
        return {
            json = read(name),
            version = dict:get("version"),
        }
    end)
end


--- Finds the dict, and makes its first keys when it is new.
-- @return true when the table has never been written
function _M.init()
    dict = ngx.shared.reloadless
    if not dict then
        error("reloadless: nginx.conf lacks lua_shared_dict reloadless")
    end

    if not dict:get("version") then
        local file = assert(io.open("/dev/urandom", "rb"))
        local id = file:read(8):gsub(".", function(char)
            return format("%02x", char:byte())
        end)
        file:close()
        dict:set("instance", id)
        dict:set("source", 1)
        dict:set("updated_at", ngx.time())
        dict:set("version", 0)
    end

    return dict:get("version") == 0
end


return _M
