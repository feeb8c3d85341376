-- Writes a small file so that it is there whole, the old one or the new one,
-- whatever ends when. One writer at a time, over all processes.

local clock = require("reloadless.shared.clock")
local ffi = require("ffi")

local C = ffi.C
local format = string.format
local match = string.match
local ngx = ngx
local tonumber = tonumber

-- Under names of our own: another module may have declared them otherwise.
ffi.cdef[[
struct reloadless_iocb {
    uint64_t data; uint32_t key, rw_flags; uint16_t opcode; int16_t priority;
    uint32_t fd; uint64_t buffer, bytes; int64_t offset; uint64_t reserved;
    uint32_t flags, event_fd;
};
struct reloadless_io_event { uint64_t data, iocb; int64_t result, result2; };
long reloadless_syscall(long number, ...) __asm__("syscall");
int reloadless_open_file(const char *path, int flags, ...) __asm__("open");
long reloadless_write(int fd, const char *data, size_t size)
    __asm__("write");
int reloadless_fsync(int fd) __asm__("fsync");
int reloadless_flock(int fd, int operation) __asm__("flock");
int reloadless_link(const char *old, const char *new) __asm__("link");
int reloadless_close_file(int fd) __asm__("close");
char *reloadless_error_text(int number) __asm__("strerror");
]]

local _M = {}

local EAGAIN = jit.os == "Linux" and 11 or 35
local LOCK_EX_NB = 2 + 4
local IOCB_CMD_FSYNC = 2

-- of Linux; elsewhere they are others
local O_NEW, O_CLOEXEC = 1 + 0x40 + 0x80, 0x80000
if jit.os ~= "Linux" then
    O_NEW, O_CLOEXEC = 1 + 0x200 + 0x800, 0x1000000
elseif jit.arch:find("^mips") then
    O_NEW = 1 + 0x100 + 0x400
end

-- io_setup, io_submit, io_getevents
local numbers = jit.os == "Linux" and ({
    x64 = { 206, 209, 208 },
    arm64 = { 0, 2, 4 },
})[jit.arch]

-- A folder that is locked for longer, or a disk that is silent for longer, is
-- an error.
local patience = 5

-- The context of this worker's asynchronous requests; false where there are
-- none. It is never given back: that would wait.
local context
local asked = 0


local function failure(what, number)
    return nil, what .. ": " .. ffi.string(
        C.reloadless_error_text(number or ffi.errno()))
end


local function call(number, ...)
    return tonumber(C.reloadless_syscall(number, ...))
end


local function long(value)
    return ffi.cast("long", value)
end


local function make_context()
    local made = ffi.new("unsigned long[1]")
    -- as many as may ever be late at once
    if numbers and call(numbers[1], long(64), made) == 0 then
        return made
    end
    return false
end


-- fsync takes as long as the disk does, and nginx serves nobody meanwhile: so
-- the kernel is asked to do it beside us. See docs/discoveries/fsync.md.
-- @return true, or nil and why not
local function fsync(fd, what)
    if context == nil then
        context = make_context()
    end
    asked = asked + 1
    local request = ffi.new("struct reloadless_iocb[1]")
    request[0].opcode, request[0].fd = IOCB_CMD_FSYNC, fd
    request[0].data = asked
    local requests = ffi.new("struct reloadless_iocb *[1]", { request })
    local mine = asked
    if not context
       or call(numbers[2], context[0], long(1), requests) ~= 1
    then
        -- a kernel before 4.18, a file system or a sandbox without it
        if C.reloadless_fsync(fd) ~= 0 then
            return failure(what)
        end
        return true
    end

    local event = ffi.new("struct reloadless_io_event[1]")
    local at_once = ffi.new("long[2]")
    local deadline = clock.now() + patience
    repeat
        local got = call(numbers[3], context[0], long(0), long(1), event,
                         at_once)
        if got == 1 and event[0].data == mine then
            if event[0].result ~= 0 then
                return failure(what, -tonumber(event[0].result))
            end
            return true
        elseif got == 0 then
            ngx.sleep(0.001)
        end
    until clock.now() > deadline
    return nil, what .. ": the disk does not answer"
end


local function write_all(fd, text)
    local at, left = ffi.cast("const char *", text), #text
    while left > 0 do
        local done = tonumber(C.reloadless_write(fd, at, left))
        if done < 0 then
            return failure("write")
        end
        at, left = at + done, left - done
    end
    return fsync(fd, "fsync")
end


local function replace(path, text, folder)
    local temporary = path .. ".tmp"
    -- what one that was killed has left, maybe another user's
    os.remove(temporary)
    local fd = C.reloadless_open_file(temporary, O_NEW + O_CLOEXEC,
                                      ffi.cast("int", 384))    -- 0600
    if fd < 0 then
        return failure(temporary)
    end
    local ok, err = write_all(fd, text)
    C.reloadless_close_file(fd)
    if ok then
        ok, err = os.rename(temporary, path)
    end
    if not ok then
        os.remove(temporary)
        return nil, err
    end
    return fsync(folder, "fsync of the folder")
end


local function lock(folder)
    local deadline = clock.now() + patience
    while C.reloadless_flock(folder, LOCK_EX_NB) ~= 0 do
        if ffi.errno() ~= EAGAIN then
            return failure("flock")
        elseif clock.now() > deadline then
            return nil, "another process has it locked"
        end
        ngx.sleep(0.001)
    end
    return true
end


--- Writes a file, in a phase that may sleep.
-- @param path of the file; its folder is locked meanwhile, and the kernel
--   unlocks it when this process dies
-- @param make called when it is locked: returns the text, or nil when there is
--   nothing to write any more. It may pause, but must not raise.
-- @return true, or nil and why not
function _M.write(path, make)
    local name = match(path, "^(.*/)") or "."
    local folder = C.reloadless_open_file(name, O_CLOEXEC)
    if folder < 0 then
        return failure(name)
    end
    local ok, err = lock(folder)
    if ok then
        local text = make()
        if text then
            ok, err = replace(path, text, folder)
        end
    end
    C.reloadless_close_file(folder)
    return ok, err
end


--- Gives a file a second name, over what had that name before.
-- @return true, or nil and why not
function _M.link(path, other)
    os.remove(other)
    if C.reloadless_link(path, other) ~= 0 then
        return failure(format("link to %s", other))
    end
    return true
end


return _M
