-- Reading a file that may be anything: io.open would wait for ever on a FIFO.

local ffi = require("ffi")

local C = ffi.C
local concat = table.concat
local min = math.min

-- Under names of our own: another module may have declared open otherwise.
ffi.cdef[[
int reloadless_open(const char *path, int flags, ...) __asm__("open");
long reloadless_read(int fd, void *buffer, size_t size) __asm__("read");
int reloadless_close(int fd) __asm__("close");
char *reloadless_strerror(int number) __asm__("strerror");
]]

local _M = {}

local ENOENT = 2
local block = 1024 * 1024

-- O_RDONLY is 0 everywhere, O_NONBLOCK is not the same.
local O_NONBLOCK = 0x800
if jit.os ~= "Linux" then
    O_NONBLOCK = 0x4
elseif jit.arch:find("^mips") then
    O_NONBLOCK = 0x80
end


local function failure()
    return ffi.string(C.reloadless_strerror(ffi.errno()))
end


local function read(fd, most)
    local buffer = ffi.new("char[?]", block)
    local parts, size = {}, 0
    repeat
        local got = tonumber(C.reloadless_read(fd, buffer,
                                               min(block, most + 1 - size)))
        if got < 0 then
            return nil, failure()
        end
        parts[#parts + 1] = ffi.string(buffer, got)
        size = size + got
    until got == 0 or size > most

    if size > most then
        return nil, "it has more than " .. most .. " bytes"
    elseif size == 0 then
        -- so does a FIFO look that nobody writes into
        return nil, "it is empty, or not a regular file"
    end
    return concat(parts)
end


--- Reads a whole file, without ever waiting for it.
-- @param most bytes that it may have
-- @return the content
-- @return nil and why not; the error is nil when there is no file
function _M.read(path, most)
    local fd = C.reloadless_open(path, O_NONBLOCK)
    if fd < 0 then
        if ffi.errno() == ENOENT then
            return nil
        end
        return nil, failure()
    end

    local content, err = read(fd, most)
    C.reloadless_close(fd)
    return content, err
end


return _M
