-- Peer addresses as nginx takes them: "10.0.0.5:8080", "[fd00::7]:8080".
-- Pure: no ngx API.

local byte = string.byte
local concat = table.concat
local find = string.find
local format = string.format
local match = string.match
local sub = string.sub
local tonumber = tonumber
local floor = math.floor

local _M = {}

local colon = byte(":")

-- by byte
local hex_digits = {}
for digit = 0, 15 do
    hex_digits[byte(format("%x", digit))] = digit
    hex_digits[byte(format("%X", digit))] = digit
end


local function parse_ipv4(text)
    local a, b, c, d = match(text, "^(%d+)%.(%d+)%.(%d+)%.(%d+)$")
    if not a then
        return nil
    end

    local bytes = { a, b, c, d }
    for i = 1, 4 do
        local part = bytes[i]
        bytes[i] = tonumber(part)
        -- a leading zero means octal to some parsers and decimal to others
        if bytes[i] > 255 or (#part > 1 and byte(part) == 48) then
            return nil
        end
    end

    return bytes
end


-- Byte by byte, which LuaJIT compiles.
local function parse_groups(text, groups)
    if text == "" then
        return true
    end

    local value, digits = 0, 0
    for i = 1, #text + 1 do
        local char = i <= #text and byte(text, i) or colon
        local digit = hex_digits[char]
        if char == colon and digits > 0 then
            groups[#groups + 1] = value
            value, digits = 0, 0
        elseif digit and digits < 4 then
            value, digits = value * 16 + digit, digits + 1
        else
            return nil
        end
    end

    return true
end


-- @return the eight groups, and where "::" stands for how many of them
local function parse_ipv6_groups(text)
    local gap = find(text, "::", 1, true)
    local groups, back = {}, {}
    if not parse_groups(gap and sub(text, 1, gap - 1) or text, groups)
       or gap and not parse_groups(sub(text, gap + 2), back)
    then
        return nil
    end

    local first, missing = #groups + 1, 8 - #groups - #back
    if (gap and missing < 1) or (not gap and missing ~= 0) then
        return nil
    end

    for _ = 1, missing do
        groups[#groups + 1] = 0
    end
    for i = 1, #back do
        groups[#groups + 1] = back[i]
    end

    return groups, gap and first or nil, missing
end


local function bytes_of(groups)
    local bytes = {}
    for i = 1, 8 do
        bytes[2 * i - 1] = floor(groups[i] / 256)
        bytes[2 * i] = groups[i] % 256
    end
    return bytes
end


local function parse_ipv6(text)
    local groups = parse_ipv6_groups(text)
    return groups and bytes_of(groups)
end


-- RFC 5952: lower case, no leading zeros, the first longest run of two or more
-- zero groups becomes "::".
-- @return where that run begins, or nil, and its length
local function longest_run(groups)
    local best, length = nil, 1
    local i = 1
    while i <= 8 do
        local run = 0
        while i + run <= 8 and groups[i + run] == 0 do
            run = run + 1
        end
        if run > length then
            best, length = i, run
        end
        i = i + run + 1
    end
    return best, length
end


local function format_ipv6(groups)
    local function join(from, to)
        local out = {}
        for k = from, to do
            out[#out + 1] = format("%x", groups[k])
        end
        return concat(out, ":")
    end

    local best, length = longest_run(groups)
    if not best then
        return join(1, 8)
    end
    return join(1, best - 1) .. "::" .. join(best + length, 8)
end


-- Whether a text is what format_ipv6 makes of its groups, without making it.
-- @param first, missing as of parse_ipv6_groups
local function is_canonical(text, groups, first, missing)
    local best, length = longest_run(groups)
    return best == first and (not best or missing == length)
           and not find(text, "%u") and not find(text, "%f[%x]0%x")
end


local function is_mapped(bytes)
    for i = 1, 10 do
        if bytes[i] ~= 0 then
            return false
        end
    end
    return bytes[11] == 255 and bytes[12] == 255
end


--- An IP address in any textual form nginx reports or a person writes.
-- @return the bytes (4 or 16 numbers), or nil
function _M.parse_ip(text)
    -- so nginx writes IPv4 that came in at an IPv6 socket
    local ipv4 = match(text, "^::ffff:([%d.]+)$") or text
    return parse_ipv4(ipv4) or parse_ipv6(text)
end


--- A peer's key.
-- @return { host =, port =, bytes = }: host as set_current_peer takes it
--   (IPv6 in brackets), port a number
-- @return nil and what is expected instead
function _M.parse(text)
    local host, port = match(text, "^(.+):(%d+)$")
    if not host then
        return nil, "an IP address and a port, as 10.0.0.5:8080 or"
                    .. " [fd00::7]:8080"
    end

    local number = tonumber(port)
    if number < 1 or number > 65535 or byte(port) == 48 then
        return nil, "a port from 1 to 65535"
    end

    local bytes = parse_ipv4(host)
    if bytes then
        return { host = host, port = number, bytes = bytes }
    end

    local inner = match(host, "^%[(.*)%]$")
    local groups, first, missing
    if inner then
        groups, first, missing = parse_ipv6_groups(inner)
    end
    if not groups then
        return nil, "an IPv4 address or an IPv6 address in brackets, never a"
                    .. " host name"
    end
    bytes = bytes_of(groups)
    if is_mapped(bytes) then
        return nil, "the IPv4 address itself instead of its IPv6 form"
    end
    if not is_canonical(inner, groups, first, missing) then
        return nil, "the canonical form [" .. format_ipv6(groups) .. "]:"
                    .. port
    end

    return { host = host, port = number, bytes = bytes }
end


--- A block of addresses, "10.0.0.0/8" or "fd00::/8" or a single address.
-- @return { bytes =, bits = }, or nil and what is expected instead
function _M.parse_cidr(text)
    local ip, length = match(text, "^(.-)/(%d+)$")
    local bytes = _M.parse_ip(ip or text)
    if not bytes then
        return nil, "a CIDR block such as 10.0.0.0/8"
    end
    if find(text, ":", 1, true) and (#bytes == 4 or is_mapped(bytes)) then
        return nil, "the IPv4 block itself instead of its IPv6 form"
    end

    local most = #bytes * 8
    local bits = tonumber(length or most)
    if bits > most or tostring(bits) ~= (length or tostring(most)) then
        return nil, "a block of 0 to " .. most .. " bits"
    end

    return { bytes = bytes, bits = bits }
end


--- Whether the address (bytes of parse) lies in the block of parse_cidr.
function _M.is_within(bytes, block)
    if #bytes ~= #block.bytes then
        return false
    end

    local bits = block.bits
    for i = 1, #bytes do
        if bits <= 0 then
            return true
        end
        local unit = bits >= 8 and 1 or 2 ^ (8 - bits)
        if floor(bytes[i] / unit) ~= floor(block.bytes[i] / unit) then
            return false
        end
        bits = bits - 8
    end

    return true
end


--- Whether the address only reaches this machine: 127.0.0.0/8, ::1, or the
-- unspecified address, which Linux takes as this machine.
function _M.is_local(bytes)
    if #bytes == 4 then
        return bytes[1] == 127
            or bytes[1] + bytes[2] + bytes[3] + bytes[4] == 0
    end

    for i = 1, 15 do
        if bytes[i] ~= 0 then
            return false
        end
    end
    return bytes[16] <= 1
end


return _M
