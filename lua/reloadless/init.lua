-- Reloadless in nginx: the functions for the phases of nginx.conf.
--
--   init_by_lua         init{…}
--   init_worker_by_lua  init_worker()
--   access_by_lua       access(name?)
--   balancer_by_lua     balance(name?)
--   header_filter_by_lua  header(), where sticky cookies are wanted
--   log_by_lua          log()
--   content_by_lua      admin(), in a server of its own

local address = require("reloadless.table.address")
local admin = require("reloadless.admin.server")
local balancer = require("reloadless.balance.balancer")
local counters = require("reloadless.shared.counters")
local dict = require("reloadless.table.dict")
local generations = require("reloadless.boot.generations")
local inflight = require("reloadless.shared.inflight")
local listeners = require("reloadless.admin.listeners")
local random_bytes = require("reloadless.shared.random_bytes")
local snapshot = require("reloadless.boot.snapshot")
local state = require("reloadless.boot.state")
local writer = require("reloadless.table.write")

local _M = {
    access = balancer.access,
    admin = admin.handle,
    balance = balancer.balance,
    header = balancer.header,
    log = balancer.log,
}

local option_types = {
    snapshot = "string",
    state = "string",
    token_file = "string",
    admin_listen = "table",
    allow = "table",
    max_body = "number",
}


local function check_options(options)
    for name, value in pairs(options) do
        local wanted = option_types[name]
        if not wanted then
            error("reloadless: init has no option " .. tostring(name), 3)
        end
        if type(value) ~= wanted then
            error("reloadless: init option " .. name .. " is a " .. type(value)
                  .. ": expected a " .. wanted, 3)
        end
    end
end


local function read_token(path)
    local file, err = io.open(path, "rb")
    if not file then
        return nil, "token_file: " .. err
    end
    local token = (file:read("*a") or ""):match("^%s*(%S+)%s*$")
    file:close()
    if not token then
        return nil, "token_file: " .. path .. " does not hold one token"
    end
    return token
end


-- @return a function of a parsed address: what is expected instead of it, or
-- nil when it lies within one of the blocks
local function refuse_outside(allow)
    local blocks = {}
    for i, text in ipairs(allow) do
        local block, expected = address.parse_cidr(text)
        if not block then
            error("reloadless: init option allow: " .. tostring(text)
                  .. ": expected " .. expected, 4)
        end
        blocks[i] = block
    end

    local expected = "an address within " .. table.concat(allow, ", ")
    return function(peer)
        for _, block in ipairs(blocks) do
            if address.is_within(peer.bytes, block) then
                return nil
            end
        end
        return expected
    end
end


-- What may never be a peer, whoever says it.
local function refuse_peers(allow)
    local refuse_other = allow and refuse_outside(allow)
    return function(peer)
        if listeners.has(peer) then
            return "a peer other than the admin API itself"
        end
        return refuse_other and refuse_other(peer)
    end
end


--- Starts Reloadless; once, in init_by_lua.
-- @param options all optional: snapshot, the path of the file that fills an
--   empty table; state, the path of the file that keeps what people have said
--   over a restart, in a folder that workers may write; token_file, the path of
--   the admin API's bearer token, without which TCP is closed; admin_listen,
--   where the admin API listens, and an upgraded nginx finds the table of the
--   old one; allow, CIDR blocks within which peers must lie; max_body, the
--   bytes that a request to the admin API may have (default: those of the dict,
--   at least 1 MiB)
-- @raise when an option is wrong or a shared dict is missing. Files that are
--   missing or damaged raise nothing: nginx starts, and the log says so.
function _M.init(options)
    options = options or {}
    check_options(options)

    local token, token_error
    if options.token_file then
        token, token_error = read_token(options.token_file)
        if token_error then
            ngx.log(ngx.ERR, "reloadless: the admin API refuses everything: ",
                    token_error, ": put one there that only nginx's master",
                    " and the agent can read, and reload nginx")
        end
    end
    listeners.init(options.admin_listen or {})
    local refuse = refuse_peers(options.allow)
    local is_new = dict.init()
    admin.init({
        token_file = options.token_file,
        token = token,
        refuse = refuse,
        max_body = options.max_body
                   or math.max(dict.capacity(), 1024 * 1024),
    })

    counters.init()
    inflight.init()
    state.init(options.state)
    if not is_new then
        return
    end
    local function fill(body, name)
        return snapshot.fill(body, name, refuse)
    end
    if not generations.load(options.admin_listen or {}, token, fill) then
        snapshot.load(options.snapshot, options.state, refuse)
    end
end


--- Prepares this worker: in init_worker_by_lua.
function _M.init_worker()
    -- workers forked from one master would draw the same numbers
    local a, b, c = random_bytes(3):byte(1, 3)
    math.randomseed((a * 65536 + b * 256 + c) * 1000 + ngx.worker.pid())

    writer.watch_ends()
    state.watch()
    counters.init_worker()
    inflight.init_worker(balancer.is_limited)
end


return _M
