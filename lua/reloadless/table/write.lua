-- Writes the upstream table. A write adds new heads and chunks beside the old
-- ones, which can fail and is then undone; it publishes by overwriting numbers
-- in place, which cannot fail; the table's version goes last.

local dict = require("reloadless.table.dict")
local json = require("reloadless.table.json")
local lock = require("reloadless.table.lock")
local overrides = require("reloadless.table.overrides")
local pause = require("reloadless.shared.pause")
local reader = require("reloadless.table.read")
local stage = require("reloadless.table.stage")

local format = string.format
local huge = math.huge
local ipairs = ipairs
local min = math.min
local next = next
local null = ngx.null
local pairs = pairs
local sort = table.sort

local _M = {}

-- Whole pages that are kept for what makes room: the new lies beside the old
-- until it is published. More peers leave all of them; what else may take room
-- in the end, a swap or a drain, leaves half, since even other texts of the
-- same length may not fit into the places of the old ones. So peers can always
-- be taken out, however full the dict is.
local function reserve()
    return min(64 * 1024, dict.capacity() / 8)
end


--- What is to be said before the dict is full, or nil.
function _M.warning()
    return dict.warning(reserve())
end


-- @return the bytes of whole pages that the changes must leave
local function to_leave(total)
    if total.fresh == 0 and total.takes <= total.frees then
        return 0
    end
    local least = reserve()
    -- where fewer are left, the free places within pages are still for all
    return min(total.added > 0 and least or least / 2, dict.free_space())
end


-- @param is_trial to leave nothing behind
-- @return the space that is then free
-- @return nil and an error
local function store(changes, is_trial)
    local total = { added = 0, fresh = 0, takes = 0, frees = 0 }
    for _, staged in ipairs(changes) do
        for name, sum in pairs(total) do
            total[name] = sum + staged[name]
        end
    end

    local free, least = dict.free_space(), to_leave(total)
    local done, fits = {}, true
    local function put(key, value)
        fits = fits and dict.add(key, value)
        if fits then
            done[#done + 1] = key
            fits = dict.free_space() >= least
        end
    end
    for _, staged in ipairs(changes) do
        for key, text in pairs(staged.add) do
            put(key, text)
            pause.after(1)
        end
        local key = dict.version_key(staged.name)
        if not staged.gone and not dict.get(key) then
            -- 0: published for nobody yet
            put(key, 0)
        end
    end
    local left = dict.free_space()
    if fits and not is_trial then
        return left
    end

    for _, key in ipairs(done) do
        dict.delete(key)
    end
    if fits then
        return left
    end
    return nil, {
        status = 507,
        detail = format("the shared dict is full: this change needs about %d"
                        .. " bytes until it has freed %d, and of %d in free"
                        .. " pages %d are kept for what shrinks the table;"
                        .. " enlarge lua_shared_dict reloadless and reload"
                        .. " nginx: the new dict is filled from the snapshot;"
                        .. " without one all is 503 until the agent has pushed",
                        total.takes, total.frees, free, least),
    }
end


local function write(jobs, options)
    for _, job in ipairs(jobs) do
        if job.known and not dict.upstream_version(job.name) then
            return nil, { status = 404,
                          detail = "there is no upstream " .. job.name }
        end
    end

    local current = dict.version()
    if options.if_match and not options.if_match(dict.etag(current)) then
        return nil, { status = 412, detail = "the table is at "
                                             .. dict.etag(current) }
    end

    local version = current + 1
    local changes = {}
    local function add(job)
        local staged, err = stage.change(job, version)
        changes[#changes + 1] = staged
        pause.after(1)
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
        for _, name in ipairs(dict.names()) do
            if not given[name] then
                add({ name = name, value = null })
            end
        end
    end

    if not next(changes) then
        return { version = current, changed = {} }
    end
    local left, err = store(changes, options.is_trial)
    if not left then
        return nil, err
    end
    if options.is_trial then
        return { version = current, changed = {}, free_space = left }
    end

    local changed = {}
    for i, staged in ipairs(changes) do
        changed[i] = staged.name
    end
    local is_kept = dict.publish(changes, version, options.source)

    for _, staged in ipairs(changes) do
        for _, key in ipairs(staged.drop) do
            dict.delete(key)
            pause.after(1)
        end
    end

    sort(changed)
    return { version = version, changed = changed, is_kept = is_kept }
end


-- Takes out the overrides that have ended: staging a change leaves them out.
local function end_overrides()
    local jobs, now, later = {}, ngx.time(), huge
    for _, name in ipairs(dict.names()) do
        local head = reader.head(name)
        local settings = head and json.decode(head.settings) or {}
        if overrides.next_end(settings) <= now then
            jobs[#jobs + 1] = { name = name, value = {}, pointer = "" }
            overrides.settle(settings, now)
        end
        later = min(later, overrides.next_end(settings))
        pause.after(1)
    end

    local result, err = write(jobs, { source = "admin" })
    if result then
        dict.set_next_end(later)
    end
    return result, err
end


--- Ends overrides when their time has come: for init_worker.
function _M.watch_ends()
    assert(ngx.timer.every(1, function()
        if dict.next_end() <= ngx.time() then
            local result, err = lock.exclusively(end_overrides)
            if not result then
                ngx.log(ngx.ERR, "reloadless: overrides have ended and stay: ",
                        err.detail, ": trying again")
            end
        end
    end))
end


--- Applies checked changes, all or none (document.check has passed on each).
-- @param jobs array of { name, value, replace, pointer, known }: value is an
--   upstream, a merge patch of one, or ngx.null to remove it; replace is true
--   for a PUT; known, when the upstream must be there
-- @param options { if_match = function(etag) → boolean, or nil;
--   whole = true to remove every upstream that no job names;
--   source = "snapshot" or "admin";
--   is_trial = true to change nothing and see whether it would fit; the result
--   then has the free_space that it would leave }
-- @return { version =, changed = { names }, is_kept = whether what people have
--   said is among it }; version has not moved when changed is empty
-- @return nil, { status, detail, pointer }: 404, 412, 422, 503 or 507, when
--   nothing has changed; or 500, when each upstream is as it was or is new
function _M.write(jobs, options)
    return lock.exclusively(write, jobs, options)
end


return _M
