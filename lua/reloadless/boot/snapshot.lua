-- The snapshot file, read at boot: line 1 a JSON header {"format":1,
-- "saved_at":…,"length":…,"crc32":…} about line 2, the document. The agent's
-- reader, agent/snapshot/format.ts, has the same rules: the cases of
-- test/cases/snapshots.json are run through both.

local deal = require("reloadless.boot.deal")
local dict = require("reloadless.table.dict")
local document = require("reloadless.table.document")
local file = require("reloadless.boot.file")
local json = require("reloadless.table.json")
local writer = require("reloadless.table.write")

local floor = math.floor
local ipairs = ipairs
local match = string.match
local max = math.max
local min = math.min
local sub = string.sub
local type = type

local _M = {}

local most_bytes = 64 * 1024 * 1024
-- Lines of the log about what is left out.
local most_lines = 10

local time = [[\A\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])]]
             .. [[T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?Z\z]]


local function decode_header(line)
    local header = line and json.decode(line)
    if type(header) ~= "table" or header.format ~= 1 then
        return nil, "its first line is not a header of format 1"
    end
    if type(header.saved_at) ~= "string"
       or not ngx.re.find(header.saved_at, time, "jo")
    then
        return nil, "its saved_at is not a time such as"
                    .. " 2026-01-31T12:00:00.000Z"
    end
    return header
end


-- @return the document, or nil and why not
local function decode(content)
    local line = match(content, "^([^\n]*)\n")
    local header, err = decode_header(line)
    if not header then
        return nil, err
    end

    local body = sub(content, #line + 2, -2)
    if #body ~= header.length or sub(content, -1) ~= "\n" then
        return nil, "it has " .. #content - #line - 1 .. " bytes behind its"
                    .. " first line: expected " .. tostring(header.length)
                    .. ", as the header says, and a newline"
    end
    if ngx.crc32_long(body) ~= header.crc32 then
        return nil, "its document does not match the header's crc32"
    end

    local value, problem = json.decode(body)
    if value == nil then
        return nil, (problem.pointer or "") .. " " .. problem.detail
    end
    return value
end


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


--- Fills the table, which must be empty. Of the document what is wrong is left
-- out alone, and so is what does not fit: each upstream has as many of its
-- peers as every other one before one of them has more.
-- @param body what JSON gave
-- @param name of where it is from, for the log
-- @param refuse as document.sift takes it
-- @return whether the table has it now
function _M.fill(body, name, refuse)
    local jobs, left_out = document.sift(body, refuse)
    if not jobs then
        return give_up(name, left_out.pointer .. " " .. left_out.detail)
    end
    local lines = {}
    for i, wrong in ipairs(left_out) do
        lines[i] = "left out: " .. wrong.pointer .. " " .. wrong.detail
    end
    log_some(lines, name .. ": ")

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
    return true
end


--- Fills the table from the file, as fill does. One that is damaged stays as it
-- is for a person to see, and the table stays empty.
-- @param path of the file
-- @param refuse as document.sift takes it
function _M.load(path, refuse)
    local name = "reloadless: snapshot " .. path
    local content, err = file.read(path, most_bytes)
    local body
    if content then
        body, err = decode(content)
    end
    if body == nil then
        return err and give_up(name, err)
    end
    _M.fill(body, name, refuse)
end


return _M
