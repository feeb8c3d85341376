-- The snapshot file, read at boot, and with it what people have said: one write
-- of both, so that no request finds the one without the other.

local deal = require("reloadless.boot.deal")
local dict = require("reloadless.table.dict")
local document = require("reloadless.table.document")
local file = require("reloadless.boot.file")
local format = require("reloadless.boot.format")
local state = require("reloadless.boot.state")
local writer = require("reloadless.table.write")

local floor = math.floor
local ipairs = ipairs
local max = math.max
local min = math.min
local tostring = tostring

local _M = {}

-- Lines of the log about what is left out.
local most_lines = 10


local function write(jobs, is_trial)
    return writer.write(jobs, {
        source = "snapshot",
        is_trial = is_trial,
        -- after a reload the old workers may write before this does
        if_match = function(etag)
            return etag == dict.etag(0)
        end,
    })
end


local function is_full(problem)
    return problem ~= nil and problem.status == 507
end


-- The most cards that fit, to one in twenty. Each try costs as much as a load,
-- so what one took foretells the next.
local function most_cards(cards, free)
    local fits, too_many = 0, #cards
    local guess = floor(too_many / 2)
    while too_many - fits > 1 and fits < 0.95 * too_many do
        guess = max(fits + 1, min(guess, too_many - 1))
        local result, problem = write(deal.jobs(cards, guess), true)
        if result then
            fits = guess
            local used = free - result.free_space
            if used > 0.9 * free then
                break
            end
            guess = floor(0.92 * free / used * fits)
        elseif is_full(problem) then
            too_many = guess
            guess = floor((fits + too_many) / 2)
        else
            return nil, problem
        end
    end
    return fits
end


-- Loads as much as there is room for.
-- @return as writer.write, and the cards and how many of them were loaded
local function write_part(jobs, free)
    local cards = deal.cards(jobs)
    local count, problem = most_cards(cards, free)
    if not count then
        return nil, problem
    end
    local result
    result, problem = write(deal.jobs(cards, count))
    return result, problem, cards, count
end


local function log_some(lines, prefix)
    for i = 1, min(#lines, most_lines) do
        ngx.log(ngx.ERR, prefix, lines[i])
    end
    if #lines > most_lines then
        ngx.log(ngx.ERR, prefix, #lines - most_lines, " more left out")
    end
end


local function log_part(name, cards, count, used)
    local lines, peers, gone = deal.left_out(cards, count)
    local missing = count > 0 and used / count * (#cards - count) or 0
    ngx.log(ngx.ERR, name, ": the shared dict is full: ", gone, " of ",
            peers, " peers are left out; about ",
            floor(missing / 1024) + 1, "k more are needed: enlarge"
            .. " lua_shared_dict reloadless")
    log_some(lines, name .. ": ")
end


local function give_up(name, why)
    ngx.log(ngx.ERR, name, " is not used: ", why)
    return false
end


-- Writes jobs into the table, which must be empty.
-- @return whether the table has them now, and whether it has all
local function fill(jobs, name)
    local free = dict.free_space()
    local result, problem, cards, count = write(jobs)
    if is_full(problem) then
        result, problem, cards, count = write_part(jobs, free)
    end
    if not result then
        return give_up(name, problem.detail)
    end

    if cards then
        log_part(name, cards, count, free - dict.free_space())
    end
    ngx.log(ngx.NOTICE, name, ": ", #result.changed, " upstreams loaded")
    return true, cards == nil
end


local function sift(body, name, refuse)
    local jobs, left_out = document.sift(body, refuse)
    if not jobs then
        give_up(name, left_out.pointer .. " " .. left_out.detail)
        return nil
    end
    local lines = {}
    for i, wrong in ipairs(left_out) do
        lines[i] = "left out: " .. wrong.pointer .. " " .. wrong.detail
    end
    log_some(lines, name .. ": ")
    return jobs
end


--- Fills the table, which must be empty. Of the document what is wrong is left
-- out alone, and so is what does not fit: each upstream has as many of its
-- peers as every other one before one of them has more.
-- @param body what JSON gave
-- @param name of where it is from, for the log
-- @param refuse as document.sift takes it
-- @return whether the table has it now
function _M.fill(body, name, refuse)
    local jobs = sift(body, name, refuse)
    return jobs ~= nil and (fill(jobs, name))
end


-- @return jobs of the snapshot, or nil
local function read_snapshot(path, refuse)
    local name = "reloadless: snapshot " .. path
    local content, err = file.read(path, format.most_bytes)
    local body
    if content then
        body, err = format.decode(content)
    end
    if body == nil then
        return err and give_up(name, err) or nil
    end
    return sift(body, name, refuse)
end


--- Fills the table from the files, as fill does. A snapshot that is damaged
-- stays as it is for a person to see, and nothing comes from it.
-- @param snapshot path of the snapshot, or nil
-- @param kept path of the state file, or nil
-- @param refuse as document.sift takes it
function _M.load(snapshot, kept, refuse)
    local jobs = snapshot and read_snapshot(snapshot, refuse)
    local said, wrong = state.load(refuse)
    if not jobs and #said == 0 and #wrong == 0 then
        return
    end

    log_some(wrong, "reloadless: state " .. tostring(kept) .. ": ")
    local is_loaded, is_whole = true, true
    if jobs or #said > 0 then
        is_loaded, is_whole = fill(state.over(jobs or {}, said, ngx.time()),
                                   snapshot and jobs
                                   and "reloadless: snapshot " .. snapshot
                                   or "reloadless: state " .. kept)
    end
    if #wrong > 0 or #said > 0 and not (is_loaded and is_whole) then
        state.keep_aside()
    else
        dict.set_saved(dict.kept())
    end
end


return _M
