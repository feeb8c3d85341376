-- The state file: what people have said, which no agent says again. It holds
-- the upstreams made by hand and, of those of an agent, the overrides. Workers
-- write it, master reads it at boot.

local complaint = require("reloadless.shared.complaint")
local dict = require("reloadless.table.dict")
local disk = require("reloadless.boot.disk")
local document = require("reloadless.table.document")
local dump = require("reloadless.table.dump")
local file = require("reloadless.boot.file")
local format = require("reloadless.boot.format")
local overrides = require("reloadless.table.overrides")

local ipairs = ipairs
local next = next
local ngx = ngx
local pcall = pcall

local _M = {}

-- of the file; nil without
local path

local complain = complaint.every(60)


--- Puts what people have said over what a snapshot gives. Pure.
-- @param jobs of a snapshot, each with an upstream given whole
-- @param kept jobs of the state file: one without peers has overrides alone
-- @param now in epoch seconds
-- @return jobs of both
function _M.over(jobs, kept, now)
    local merged, said = {}, {}
    for _, job in ipairs(kept) do
        local value = job.value
        -- overrides that have all ended make no upstream
        if overrides.settle(value, now) or next(value) then
            said[job.name] = job
        end
    end
    for _, job in ipairs(jobs) do
        local own = said[job.name]
        if own and not own.value.peers then
            job.value.overrides = own.value.overrides
            said[job.name] = nil
        end
        -- an upstream made by hand goes before an agent's of its name
        if not said[job.name] then
            merged[#merged + 1] = job
        end
    end
    for _, job in ipairs(kept) do
        if said[job.name] then
            merged[#merged + 1] = job
        end
    end
    return merged
end


--- @param given path of the file, or nil for none
function _M.init(given)
    path = given
end


--- Reads the state file at boot. What is wrong is left out alone, and then the
-- file as it was stays beside, for a person to see.
-- @param refuse as document.sift takes it
-- @return jobs as document.sift gives them, and what is wrong, lines for the
--   log
function _M.load(refuse)
    local content, err = nil, nil
    if path then
        content, err = file.read(path, format.most_bytes)
    end
    if not content and not err then
        return {}, {}
    end

    local body
    if content then
        body, err = format.decode(content)
    end
    local jobs, left_out
    if body ~= nil then
        jobs, left_out = document.sift(body, refuse)
        if not jobs then
            err = left_out.pointer .. " " .. left_out.detail
        end
    end
    if not jobs then
        return {}, { "is not used: " .. err }
    end
    local lines = {}
    for i, wrong in ipairs(left_out) do
        lines[i] = "left out: " .. wrong.pointer .. " " .. wrong.detail
    end
    return jobs, lines
end


--- Gives the file as it is a second name, before a save takes its place.
function _M.keep_aside()
    local aside = path .. ".damaged"
    local ok, err = disk.link(path, aside)
    ngx.log(ngx.ERR, "reloadless: state ", path, ": ", ok
            and "as it was it stays as " .. aside or err)
end


-- @return the content of the file, or nil when it has that already
local function content()
    local kept = dict.kept()
    if dict.saved() >= kept then
        return nil
    end
    return format.encode(dump.by_hand(), ngx.time()), kept
end


--- Saves what people have said, if the file does not have it yet, and waits
-- until the disk has it: in a phase that may sleep. Those that wait for each
-- other save once.
-- @return true, or nil and why not; then it is tried again, each second
function _M.save()
    if not path or dict.saved() >= dict.kept() then
        return true
    end
    local kept
    local failed
    local ok, err = disk.write(path, function()
        local done, text, version = pcall(content)
        kept = version
        if not done then
            failed = text
            return nil
        end
        return text
    end)
    if failed then
        ok, err = nil, failed
    end
    if not ok then
        complain("state ", path, " cannot be saved: ", err,
                 ": it is in force, but a restart of nginx loses it; trying",
                 " again")
        return nil, err
    end
    if kept then
        dict.set_saved(kept)
    end
    return true
end


--- Saves what no request has saved: for init_worker.
function _M.watch()
    if path and ngx.worker.id() == 0 then
        assert(ngx.timer.every(1, _M.save))
    end
end


return _M
