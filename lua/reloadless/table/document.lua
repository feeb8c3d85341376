-- The upstream table as a document: which fields there are, what they may
-- hold, how one upstream is patched (RFC 7396) and written down in one
-- canonical form. Pure but for ngx.null, whether there is a dict, and pauses.

local address = require("reloadless.table.address")
local cjson = require("cjson.safe")
local pause = require("reloadless.shared.pause")
local sorted_keys = require("reloadless.shared.sorted")

local concat = table.concat
local find = string.find
local format = string.format
local gsub = string.gsub
local ipairs = ipairs
local null = ngx.null
local pairs = pairs
local sub = string.sub
local tonumber = tonumber
local tostring = tostring
local type = type

local _M = {}

-- So many are named in one answer: as many as an agent's part has peers.
local most_errors = 1000

-- JSON has no NaN, Infinity or hexadecimal; cjson takes them unless told.
local json = cjson.new()
json.decode_invalid_numbers(false)


local function integer(low, high)
    return function(value)
        if type(value) ~= "number" or value % 1 ~= 0
           or value < low or value > high
        then
            return format("an integer from %d to %d", low, high)
        end
    end
end


-- Requests at once are counted in a dict of their own.
local function limit(value)
    local expected = integer(0, 65535)(value)
    if not expected and value > 0 and not ngx.shared.reloadless_inflight then
        return "0, since nginx.conf lacks lua_shared_dict reloadless_inflight"
               .. " 1m"
    end
    return expected
end


-- nginx counts time in milliseconds.
local function seconds(high)
    return function(value)
        if type(value) ~= "number" or value < 0 or value > high
           or tonumber(format("%.3f", value)) ~= value
        then
            return format("seconds from 0 to %d with at most 3 decimals", high)
        end
    end
end


local function boolean(value)
    if type(value) ~= "boolean" then
        return "true or false"
    end
end


local function text(high)
    return function(value)
        if type(value) ~= "string" or #value < 1 or #value > high
           or find(value, "%c")
        then
            return format("a string of 1 to %d bytes without control"
                          .. " characters", high)
        end
    end
end


local function one_of(...)
    local names = { ... }
    return function(value)
        for _, name in ipairs(names) do
            if value == name then
                return nil
            end
        end
        return "one of " .. concat(names, ", ")
    end
end


local function cookie_name(value)
    if type(value) ~= "string" or #value > 64
       or not find(value, "^[%w_-]+$")
    then
        return "a cookie name: 1 to 64 of A-Z a-z 0-9 _ -"
    end
end


local function variables(value)
    local rest, braced = gsub(tostring(value), "%${[%w_]+}", " ")
    if type(value) ~= "string" or #value > 1024 or find(value, "%c")
       or braced == 0 and not find(rest, "%$[%w_]") or find(rest, "${", 1, true)
    then
        return "a string with nginx variables, such as $remote_addr"
    end
end


-- In the order in which they are written down.
local peer_fields = {
    { "weight", integer(0, 65535) },
    { "backup", boolean },
    { "drain", boolean },
    { "id", text(255) },
    { "zone", text(255) },
    { "max_conns", limit },
    { "slow_start", seconds(86400) },
}

local upstream_fields = {
    { "owner", text(128) },
    { "balance", one_of("round_robin", "least_conn", "ewma", "random",
                        "hash") },
    { "hash_key", variables },
    { "sticky", cookie_name },
    { "max_fails", integer(0, 65535) },
    { "fail_timeout", seconds(86400) },
    { "max_tries", integer(1, 100) },
    { "connect_timeout", seconds(86400) },
    { "send_timeout", seconds(86400) },
    { "read_timeout", seconds(86400) },
    { "zone", text(255) },
}

local function index(fields)
    local by_name = {}
    for _, field in ipairs(fields) do
        by_name[field[1]] = field[2]
        field.label = '"' .. field[1] .. '":'
    end
    return by_name
end

local agent_fields = {
    { "id", text(64) },
    { "host", text(255) },
    { "pid", integer(1, 2 ^ 31 - 1) },
    { "since", text(64) },
}

local peer_checks = index(peer_fields)
local upstream_checks = index(upstream_fields)
local agent_checks = index(agent_fields)

-- Each of them has a check of its own.
function upstream_checks.peers(value)
    if type(value) ~= "table" then
        return "an object of peers by address"
    end
end


--- RFC 6901: one step of a JSON pointer.
function _M.pointer_step(name)
    return "/" .. gsub(gsub(name, "~", "~0"), "/", "~1")
end


--- @return a value as JSON, with "/" as people write it
function _M.encode(value)
    return (gsub(json.encode(value), "\\/", "/"))
end


local function show(value)
    if type(value) == "table" then
        return "an object"
    elseif type(value) == "number" then
        -- 1e999 is JSON, and infinite
        return tostring(value)
    elseif type(value) == "string" then
        -- enough of it: others wait
        value = sub(value, 1, 320)
    end

    local shown = _M.encode(value)
    if #shown > 80 then
        -- not in the middle of a character
        shown = gsub(sub(shown, 1, 77), "[\194-\244]?[\128-\191]*$", "")
                .. "..."
    end
    return shown
end


local function invalid(pointer, what, value, expected)
    return {
        status = 422,
        pointer = pointer,
        detail = what .. " is " .. show(value) .. ": expected " .. expected,
    }
end


-- Errors come with the pointer from the value on, and who asked puts its own
-- before: so what is right costs no pointer.
local function within(pointer, err)
    err.pointer = pointer .. err.pointer
    return err
end


local function check_object(value, checks, partial, what)
    if type(value) ~= "table" then
        return invalid("", what, value,
                       partial and "an object or null" or "an object")
    end

    for name, item in pairs(value) do
        local check = checks[name]
        if not check then
            return { status = 422, pointer = _M.pointer_step(name),
                     detail = "unknown field " .. show(name) }
        end
        if not (partial and item == null) then
            local expected = check(item)
            if expected then
                return invalid(_M.pointer_step(name), name, item, expected)
            end
        end
    end
end


local function check_peer(key, peer, partial, refuse)
    local parsed, expected = address.parse(key)
    if not parsed then
        return invalid("", "the address", key, expected)
    end
    -- what is already in may always be taken out
    if partial and peer == null then
        return nil
    end
    local refused = refuse(parsed)
    if refused then
        return invalid("", "the address", key, refused)
    end
    return check_object(peer, peer_checks, partial, "a peer")
end


local function check_peers(peers, partial, refuse, pointer, errors)
    for key, peer in pairs(peers) do
        local err = check_peer(key, peer, partial, refuse)
        if err then
            errors[#errors + 1] = within(pointer .. "/peers"
                                         .. _M.pointer_step(key), err)
            if #errors >= most_errors then
                return
            end
        end
        pause.after(1)
    end
end


local function check_name(name)
    -- clients take . and .. out of a path before they send it (RFC 3986 5.2.4)
    if #name < 1 or #name > 128 or find(name, "[^%w._-]")
       or name == "." or name == ".."
    then
        return invalid("", "the name", name,
                       "1 to 128 of A-Z a-z 0-9 . _ - but not . or ..")
    end
end


-- All but the peers themselves.
local function check_own(value, partial)
    return check_object(value, upstream_checks, partial, "an upstream")
end


-- Appends to errors what is wrong with a job, its own fields and each peer, so
-- that one answer names all that must be left out.
local function check_job(job, refuse, errors)
    local value, partial = job.value, not job.replace
    local err = check_name(job.name)
    if not err and not (partial and value == null) then
        err = check_own(value, partial)
    end
    if err then
        errors[#errors + 1] = within(job.pointer, err)
    end
    if type(value) == "table" and type(value.peers) == "table" then
        check_peers(value.peers, partial, refuse, job.pointer, errors)
    end
end


-- @return the first error, and where there are several, all of them in it
local function summary(errors)
    local first = errors[1]
    if not errors[2] then
        return first
    end
    local all = {}
    for i, err in ipairs(errors) do
        all[i] = { pointer = err.pointer, detail = err.detail }
    end
    return { status = first.status, pointer = first.pointer,
             detail = first.detail, errors = all }
end


--- Checks the change of one upstream, field by field.
-- @param job { name, value, replace, pointer }: value is an upstream when
--   replace is true, else a merge patch of one, or null to remove it; pointer
--   is the JSON pointer of value in the request
-- @param refuse function(parsed address) that returns what is expected instead,
--   or nil
-- @return the job
-- @return nil and an error { status, pointer, detail, errors }: errors, where
--   there are several, is an array of { pointer, detail }
function _M.check(job, refuse)
    local errors = {}
    check_job(job, refuse, errors)
    if errors[1] then
        return nil, summary(errors)
    end
    return job
end


local function check_frame(body, replace)
    local err = check_object(body, { upstreams = function(value)
        if type(value) ~= "table" then
            return "an object of upstreams by name"
        end
    end }, false, "the document")
    if not err and replace and not body.upstreams then
        return { status = 422, pointer = "/upstreams",
                 detail = "upstreams is missing" }
    end
    return err
end


--- Checks a whole document, or a merge patch of one.
-- @param body what JSON gave
-- @param replace true for a whole document
-- @param refuse as for check
-- @return an array of jobs as check takes them
-- @return nil and an error as check gives it
function _M.check_all(body, replace, refuse)
    local err = check_frame(body, replace)
    if err then
        return nil, err
    end

    local jobs, errors = {}, {}
    for name, value in pairs(body.upstreams or {}) do
        local job = {
            name = name, value = value, replace = replace,
            pointer = "/upstreams" .. _M.pointer_step(name),
        }
        check_job(job, refuse, errors)
        if #errors >= most_errors then
            break
        end
        jobs[#jobs + 1] = job
        pause.after(1)
    end
    if errors[1] then
        return nil, summary(errors)
    end
    return jobs
end


--- Checks what an agent says of itself.
-- @param owner whose upstreams it manages
-- @return nil, or an error { status, pointer, detail }
function _M.check_agent(owner, body)
    local expected = text(128)(owner)
    if expected then
        return invalid("", "the owner", owner, expected)
    end
    local err = check_object(body, agent_checks, false, "", "an agent")
    if err then
        return err
    end
    for _, field in ipairs(agent_fields) do
        if body[field[1]] == nil then
            return { status = 422, pointer = "/" .. field[1],
                     detail = field[1] .. " is missing" }
        end
    end
end


--- What one field alone cannot show.
-- @param settings an upstream's fields without its peers
-- @return nil, or an error
function _M.check_settings(settings, pointer)
    if settings.balance == "hash" and not settings.hash_key then
        return { status = 422, pointer = pointer .. "/hash_key",
                 detail = "hash_key is missing: balance hash needs the"
                          .. " variables to hash, such as $remote_addr" }
    end
end


--- Takes of a whole document what is right: a bad peer is left out alone, and
-- so is an upstream whose own fields are bad.
-- @param body what JSON gave; it loses the bad peers
-- @param refuse as for check
-- @return an array of jobs as writer.write takes them, and an array of errors
--   { pointer, detail } about what is left out
-- @return nil and an error { status, pointer, detail } when it is no document
function _M.sift(body, refuse)
    local err = check_frame(body, true)
    if err then
        return nil, err
    end

    local jobs, left_out = {}, {}
    local function leave_out(pointer, wrong)
        left_out[#left_out + 1] = within(pointer, wrong)
    end
    for name, value in pairs(body.upstreams) do
        local pointer = "/upstreams" .. _M.pointer_step(name)
        local wrong = check_name(name) or check_own(value, false)
                      or _M.check_settings(value, "")
        if wrong then
            leave_out(pointer, wrong)
        else
            local peers = value.peers or {}
            for key, peer in pairs(peers) do
                wrong = check_peer(key, peer, false, refuse)
                if wrong then
                    peers[key] = nil
                    leave_out(pointer .. "/peers" .. _M.pointer_step(key),
                              wrong)
                end
            end
            jobs[#jobs + 1] = { name = name, value = value, replace = true,
                                pointer = pointer }
        end
    end
    return jobs, left_out
end


--- RFC 7396 for an object of plain fields.
-- @return a new table; target stays as it is
function _M.merge(target, patch)
    local merged = {}
    for name, value in pairs(target) do
        merged[name] = value
    end
    for name, value in pairs(patch) do
        if name ~= "peers" then
            if value == null then
                value = nil
            end
            merged[name] = value
        end
    end
    return merged
end


local function encode_value(value)
    local kind = type(value)
    if kind == "number" then
        if value % 1 == 0 then
            return format("%d", value)
        end
        local short = format("%.14g", value)
        return tonumber(short) == value and short or format("%.17g", value)
    elseif kind == "string" and not find(value, '[%c"\\]') then
        -- as most are: nothing to escape
        return '"' .. value .. '"'
    end
    return _M.encode(value)
end


-- Appends an object to out, piece by piece: one concat then makes one text of
-- all, where a text for each part would have to be made and thrown away.
-- @return the new number of pieces
local function add_fields(out, n, object, fields)
    local start = n
    for i = 1, #fields do
        local value = object[fields[i][1]]
        if value ~= nil then
            out[n + 1] = n == start and "{" or ","
            out[n + 2] = fields[i].label
            out[n + 3] = encode_value(value)
            n = n + 3
        end
    end
    out[n + 1] = n == start and "{}" or "}"
    return n + 1
end


--- @return an upstream's settings as JSON in canonical form
function _M.encode_settings(settings)
    local out = {}
    add_fields(out, 0, settings, upstream_fields)
    return concat(out)
end


--- @return peers as the inside of a JSON object, without its braces, sorted by
-- address, so that equal peers have equal text
function _M.encode_peers(peers)
    local keys = sorted_keys(peers)
    local out, n = {}, 0
    for i = 1, #keys do
        local key = keys[i]
        out[n + 1] = i == 1 and '"' or ',"'
        out[n + 2] = key
        out[n + 3] = '":'
        n = add_fields(out, n + 3, peers[key], peer_fields)
        pause.after(1)
    end
    return concat(out)
end


--- The reverse of encode_peers.
function _M.decode_peers(body)
    return json.decode("{" .. body .. "}")
end


-- Outside of strings; possessive, so that long strings cost no stack.
local array = [[("(?:[^"\\]|\\.)*+")(*SKIP)(*FAIL)|\[]]
local token = [["((?:[^"\\]|\\.)*+)"(\s*:)?|[{}]|(\[)]]


-- Where in a JSON text the first array stands.
local function array_pointer(body)
    local path, depth, key = {}, 0, nil
    for m in ngx.re.gmatch(body, token, "jos") do
        local mark = m[0]
        if mark == "{" then
            depth = depth + 1
            path[depth] = key or false
            key = nil
        elseif mark == "}" then
            path[depth] = nil
            depth = depth - 1
        elseif m[3] then
            break
        elseif m[2] then
            key = json.decode('"' .. m[1] .. '"')
        end
    end

    local steps = {}
    for i = 2, depth do
        steps[#steps + 1] = _M.pointer_step(path[i])
    end
    if key then
        steps[#steps + 1] = _M.pointer_step(key)
    end
    return concat(steps)
end


--- Reads a JSON text.
-- @return the value
-- @return nil and an error: 400 when it is not JSON, 422 when it holds an
--   array: the document has none, and cjson cannot tell [] from {}
function _M.decode(body)
    local value, err = json.decode(body)
    -- cjson takes any bytes for text; "u" makes PCRE look at all of them first
    if value ~= nil and ngx.re.find(body, "[\\x80-\\xff]", "jo") then
        local _, _, wrong = ngx.re.find(body, "", "ju")
        if wrong then
            value, err = nil, "it is not UTF-8"
        end
    end
    if value == nil then
        return nil, { status = 400, detail = "the body is not JSON: " .. err }
    end

    -- the quick look first: IPv6 addresses have theirs behind a quote
    if ngx.re.find(body, [[(?<!")\[]], "jo")
       and ngx.re.find(body, array, "jos")
    then
        return nil, { status = 422, pointer = array_pointer(body),
                      detail = "an array: the document holds objects only" }
    end

    return value
end


return _M
