-- The upstream table as a document: whether it is right, whole or as a merge
-- patch, and how one upstream is patched (RFC 7396). Pure but for ngx.null and
-- pauses.

local address = require("reloadless.table.address")
local fields = require("reloadless.table.fields")
local json = require("reloadless.table.json")
local overrides = require("reloadless.table.overrides")
local pause = require("reloadless.shared.pause")

local gsub = string.gsub
local ipairs = ipairs
local null = ngx.null
local pairs = pairs
local sub = string.sub
local tostring = tostring
local type = type

local _M = {}

-- So many are named in one answer; an agent leaves them out and asks again.
local most_errors = 1000

-- Of an upstream, whose peers have checks of their own.
local own_checks = {
    peers = function(value)
        if type(value) ~= "table" then
            return "an object of peers by address"
        end
    end,
}
for _, field in ipairs(fields.upstream) do
    own_checks[field.name] = field.check
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

    local shown = json.encode(value)
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
            return { status = 422, pointer = json.pointer_step(name),
                     detail = "unknown field " .. show(name) }
        end
        if not (partial and item == null) then
            local wrong = check(item, partial)
            if type(wrong) == "table" then
                return within(json.pointer_step(name), wrong)
            elseif wrong then
                return invalid(json.pointer_step(name), name, item, wrong)
            end
        end
    end
end


-- Checks a field that may hold an object.
-- @return what was expected, or an error about what is inside
function own_checks.sticky(value, partial)
    if type(value) == "table" then
        return check_object(value, fields.sticky.checks, partial, "sticky")
    end
    return fields.upstream.checks.sticky(value)
end


-- Of each override. Whom it is about need not be there, so any address will do.
function own_checks.overrides(value, partial)
    local expected = fields.upstream.checks.overrides(value)
    if expected then
        return expected
    end
    for key, override in pairs(value) do
        local parsed, wanted = address.parse(key)
        local err
        if not parsed then
            err = invalid("", "the address", key, wanted)
        elseif not (partial and override == null) then
            err = check_object(override, fields.override.checks, partial,
                               "an override")
        end
        if err then
            return within(json.pointer_step(key), err)
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
    return check_object(peer, fields.peer.checks, partial, "a peer")
end


local function check_peers(peers, partial, refuse, pointer, errors)
    for key, peer in pairs(peers) do
        local err = check_peer(key, peer, partial, refuse)
        if err then
            errors[#errors + 1] = within(pointer .. "/peers"
                                         .. json.pointer_step(key), err)
            if #errors >= most_errors then
                return
            end
        end
        pause.after(1)
    end
end


local function check_name(name)
    local expected = fields.check_name(name)
    if expected then
        return invalid("", "the name", name, expected)
    end
end


-- All but the peers themselves.
local function check_own(value, partial)
    return check_object(value, own_checks, partial, "an upstream")
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
            pointer = "/upstreams" .. json.pointer_step(name),
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
    local expected = fields.upstream.checks.owner(owner)
    if expected then
        return invalid("", "the owner", owner, expected)
    end
    local err = check_object(body, fields.agent.checks, false, "an agent")
    if err then
        return err
    end
    for _, field in ipairs(fields.agent) do
        if body[field.name] == nil then
            return { status = 422, pointer = "/" .. field.name,
                     detail = field.name .. " is missing" }
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
    local sticky = settings.sticky
    if type(sticky) == "table" and not sticky.cookie then
        return { status = 422, pointer = pointer .. "/sticky/cookie",
                 detail = "cookie is missing: expected its name" }
    end
    local count = overrides.count(settings)
    if count > overrides.most then
        return { status = 422, pointer = pointer .. "/overrides",
                 detail = "there are " .. count .. " overrides: expected at"
                          .. " most " .. overrides.most }
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
        local pointer = "/upstreams" .. json.pointer_step(name)
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
                    leave_out(pointer .. "/peers" .. json.pointer_step(key),
                              wrong)
                end
            end
            jobs[#jobs + 1] = { name = name, value = value, replace = true,
                                pointer = pointer }
        end
    end
    return jobs, left_out
end


--- RFC 7396 for all but peers.
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
            elseif type(value) == "table" then
                local inside = merged[name]
                value = _M.merge(type(inside) == "table" and inside or {},
                                 value)
            end
            merged[name] = value
        end
    end
    return merged
end


return _M
