-- HTTP in a phase that has no cosockets, for init_by_lua: nginx's master, which
-- serves nobody, waits meanwhile.

local address = require("reloadless.table.address")
local ffi = require("ffi")

local C = ffi.C
local char = string.char
local concat = table.concat
local floor = math.floor
local format = string.format
local lower = string.lower
local match = string.match
local rep = string.rep
local tonumber = tonumber
local unpack = unpack

-- Under names of our own: another module may have declared them otherwise.
ffi.cdef[[
struct reloadless_pollfd { int fd; short events; short revents; };
int reloadless_socket(int family, int type, int protocol) __asm__("socket");
int reloadless_connect(int fd, const char *to, unsigned size)
    __asm__("connect");
int reloadless_poll(struct reloadless_pollfd *fds, unsigned long count,
                    int ms) __asm__("poll");
long reloadless_send(int fd, const char *data, size_t size, int flags)
    __asm__("send");
long reloadless_recv(int fd, char *buffer, size_t size, int flags)
    __asm__("recv");
int reloadless_shut(int fd) __asm__("close");
char *reloadless_error(int number) __asm__("strerror");
]]

local _M = {}

-- of Linux; elsewhere they may be others
local AF_UNIX, AF_INET, AF_INET6 = 1, 2, 10
local SOCK_STREAM, SOCK_NONBLOCK = 1, 0x800
local POLLIN, POLLOUT = 1, 4
local EINPROGRESS = 115
local MSG_NOSIGNAL = 0x4000

-- A silence of so many ms is the end; a large table takes a while to write.
local patience = 3000

local block = 1024 * 1024


-- @return a struct sockaddr as text, or nil
local function socket_address(text)
    local path = match(text, "^unix:(.+)$")
    if path then
        return ffi.string(ffi.new("uint16_t[1]", AF_UNIX), 2) .. path .. "\0"
    end

    local parsed = address.parse(text)
    if not parsed then
        return nil
    end
    local port = char(floor(parsed.port / 256), parsed.port % 256)
    local bytes = char(unpack(parsed.bytes))
    local is_4 = #bytes == 4
    local family = ffi.new("uint16_t[1]", is_4 and AF_INET or AF_INET6)
    return ffi.string(family, 2) .. port
           .. (is_4 and bytes .. rep("\0", 8)
               or rep("\0", 4) .. bytes .. rep("\0", 4))
end


local function wait(fd, events)
    local polled = ffi.new("struct reloadless_pollfd[1]", { { fd, events } })
    return C.reloadless_poll(polled, 1, patience) == 1
end


local function failure()
    return nil, ffi.string(C.reloadless_error(ffi.errno()))
end


local function exchange(fd, to, request)
    if C.reloadless_connect(fd, to, #to) ~= 0 and ffi.errno() ~= EINPROGRESS
    then
        return failure()
    end
    if not wait(fd, POLLOUT) then
        return nil, "it does not take the connection"
    end
    if C.reloadless_send(fd, request, #request, MSG_NOSIGNAL) ~= #request then
        return failure()
    end

    local buffer = ffi.new("char[?]", block)
    local parts = {}
    repeat
        if not wait(fd, POLLIN) then
            return nil, "it does not answer"
        end
        local got = tonumber(C.reloadless_recv(fd, buffer, block, 0))
        if got < 0 then
            return failure()
        end
        parts[#parts + 1] = ffi.string(buffer, got)
    until got == 0
    return concat(parts)
end


--- Sends a GET and waits for the answer.
-- @param to an address as nginx listens on it: "127.0.0.1:9410", "unix:/path"
-- @param path and query
-- @param headers an array of lines
-- @return { status, headers = { by name in lower case }, body }
-- @return nil and why not
function _M.get(to, path, headers)
    local at = jit.os == "Linux" and socket_address(to)
    if not at then
        return nil, "it cannot be reached from here"
    end
    local fd = C.reloadless_socket(at:byte(1) + 256 * at:byte(2),
                                   SOCK_STREAM + SOCK_NONBLOCK, 0)
    if fd < 0 then
        return failure()
    end
    -- HTTP/1.0: the body ends with the connection
    local request = format("GET %s HTTP/1.0\r\nHost: localhost\r\n%s\r\n\r\n",
                           path, concat(headers, "\r\n"))
    local text, err = exchange(fd, at, request)
    C.reloadless_shut(fd)
    if not text then
        return nil, err
    end

    local head, body = match(text, "^(.-\r\n)\r\n(.*)$")
    local status = head and match(head, "^HTTP/1%.%d (%d%d%d)")
    if not status then
        return nil, "the answer is not HTTP"
    end
    local received = {}
    for name, value in head:gmatch("\n([^:\r\n]+): *([^\r\n]*)") do
        received[lower(name)] = value
    end
    if #body ~= tonumber(received["content-length"] or #body) then
        return nil, "the answer is cut off"
    end
    return { status = tonumber(status), headers = received, body = body }
end


return _M
