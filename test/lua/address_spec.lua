-- Proves that a peer's address has exactly one spelling, the one of RFC 5952,
-- and that blocks hold what they should: against the C library's own parser.
-- More that is no peer is in test/cases/values.txt.

local address = require("reloadless.table.address")
local ffi = require("ffi")

ffi.cdef[[
int inet_pton(int family, const char *text, void *bytes);
const char *inet_ntop(int family, const void *bytes, char *text, uint32_t size);
]]

local AF_INET, AF_INET6 = 2, 10


-- The C library's spelling of a text that is an address, or nil.
local function spelling(family, text)
    local bytes, out = ffi.new("uint8_t[16]"), ffi.new("char[64]")
    if ffi.C.inet_pton(family, text, bytes) ~= 1 then
        return nil
    end
    return ffi.string(ffi.C.inet_ntop(family, bytes, out, 64))
end


-- Random groups with many zeros, so that runs of them are common.
local function random_groups()
    local groups = {}
    for i = 1, 8 do
        groups[i] = math.random(3) > 1 and 0 or math.random(0, 65535)
    end
    return groups
end


local function write_groups(groups, pattern)
    local out = {}
    for i = 1, 8 do
        out[i] = pattern:format(groups[i])
    end
    return table.concat(out, ":")
end


describe("an IPv4 peer", function()
    it("is its host, port and bytes", function()
        assert.same({ host = "10.0.0.5", port = 8080, bytes = { 10, 0, 0, 5 } },
                    address.parse("10.0.0.5:8080"))
        assert.same({ host = "255.255.255.255", port = 65535,
                      bytes = { 255, 255, 255, 255 } },
                    address.parse("255.255.255.255:65535"))
    end)
end)


describe("an IPv6 peer", function()
    for text, host in pairs({
        ["[::]:80"] = "[::]",
        ["[::1]:80"] = "[::1]",
        ["[fd00::7]:80"] = "[fd00::7]",
        ["[1::]:80"] = "[1::]",
        ["[2001:db8::1:0:0:1]:80"] = "[2001:db8::1:0:0:1]",
        ["[2001:db8:0:1:1:1:1:1]:80"] = "[2001:db8:0:1:1:1:1:1]",
        ["[1:0:0:2::3]:80"] = "[1:0:0:2::3]",
        ["[1:2:3:4:5:6:7:0]:80"] = "[1:2:3:4:5:6:7:0]",
        ["[::102:304]:80"] = "[::102:304]",
    }) do
        it("may be " .. text, function()
            assert.same(host, assert(address.parse(text)).host)
        end)
    end

    for text, canonical in pairs({
        ["[0:0:0:0:0:0:0:1]:80"] = "[::1]:80",
        ["[FD00::7]:80"] = "[fd00::7]:80",
        ["[fd00::0007]:80"] = "[fd00::7]:80",
        ["[fd00:0::7]:80"] = "[fd00::7]:80",
        ["[::0]:80"] = "[::]:80",
        ["[1::2:3:4:5:6:7]:80"] = "[1:0:2:3:4:5:6:7]:80",
        ["[1:2:3:4:5:6:7::]:80"] = "[1:2:3:4:5:6:7:0]:80",
        ["[1::2:0:0:0:3]:80"] = "[1:0:0:2::3]:80",
        ["[1:0:0:2:3::4]:80"] = "[1::2:3:0:0:4]:80",
    }) do
        it("is never " .. text .. ", which is told its form", function()
            local parsed, expected = address.parse(text)
            assert.is_nil(parsed)
            assert.same("the canonical form " .. canonical, expected)
        end)
    end

    it("is never IPv4 in disguise", function()
        local parsed, expected = address.parse("[::ffff:a00:5]:80")
        assert.is_nil(parsed)
        assert.same("the IPv4 address itself instead of its IPv6 form",
                    expected)
    end)

    it("has the C library's one spelling and no other", function()
        for _ = 1, 5000 do
            local groups = random_groups()
            local long = write_groups(groups, "%04x")
            local right = spelling(AF_INET6, long)
            -- dotted quads are IPv4 in disguise, or refused
            if not right:find(".", 1, true) then
                local parsed = assert(address.parse("[" .. right .. "]:80"))
                assert.same("[" .. right .. "]", parsed.host)
                for i = 1, 8 do
                    assert.same(groups[i], parsed.bytes[2 * i - 1] * 256
                                           + parsed.bytes[2 * i])
                end

                for _, other in ipairs({ long, write_groups(groups, "%x"),
                                         right:upper() })
                do
                    if other ~= right then
                        local _, expected =
                            address.parse("[" .. other .. "]:80")
                        assert.same("the canonical form [" .. right
                                    .. "]:80", expected)
                    end
                end
            end
        end
    end)
end)


it("takes a text exactly when the C library would write it so", function()
    local alphabet = { "0", "1", "2", "5", "f", ":", ":", ".", ".", "::" }
    for _ = 1, 50000 do
        local out = {}
        for i = 1, math.random(12) do
            out[i] = alphabet[math.random(#alphabet)]
        end
        local text = table.concat(out)
        assert(spelling(AF_INET, text) == text
               == (address.parse(text .. ":80") ~= nil), text)
        local spelled = spelling(AF_INET6, text) or ""
        -- the C library writes ::102:304 as ::1.2.3.4
        if not spelled:find(".", 1, true) then
            assert(spelled == text
                   == (address.parse("[" .. text .. "]:80") ~= nil), text)
        end
    end
end)


describe("an address that nginx reports", function()
    it("may be IPv4 in its IPv6 form", function()
        -- $server_addr of a listener that takes both, [::]:9410 ipv6only=off
        assert.same({ 127, 0, 0, 1 }, address.parse_ip("::ffff:127.0.0.1"))
        assert.same({ 10, 0, 0, 5 }, address.parse_ip("10.0.0.5"))
        assert.is_nil(address.parse_ip("unix:/run/admin.sock"))
        assert.is_nil(address.parse_ip(""))
    end)
end)


describe("a block", function()
    local function bits_of(bytes)
        local out = {}
        for _, byte in ipairs(bytes) do
            for k = 7, 0, -1 do
                out[#out + 1] = math.floor(byte / 2 ^ k) % 2
            end
        end
        return table.concat(out)
    end

    local function random_bytes(length)
        local bytes = {}
        for i = 1, length do
            bytes[i] = math.random(0, 255)
        end
        return bytes
    end

    it("holds the addresses that share its first bits", function()
        for _ = 1, 5000 do
            local length = math.random(2) == 1 and 4 or 16
            local network = random_bytes(length)
            local inside = random_bytes(length)
            for i = 1, math.random(0, length) do
                inside[i] = network[i]
            end
            local bits = math.random(0, 8 * length)
            local text = length == 4 and table.concat(network, ".")
            if not text then
                local groups = {}
                for i = 1, 8 do
                    groups[i] = network[2 * i - 1] * 256 + network[2 * i]
                end
                text = write_groups(groups, "%x")
            end
            local block = assert(address.parse_cidr(text .. "/" .. bits))
            assert.same(bits_of(network):sub(1, bits)
                        == bits_of(inside):sub(1, bits),
                        address.is_within(inside, block))
        end
    end)

    it("may be one address, and never holds the other family", function()
        local one = assert(address.parse_cidr("10.0.0.5"))
        assert.is_true(address.is_within({ 10, 0, 0, 5 }, one))
        assert.is_false(address.is_within({ 10, 0, 0, 4 }, one))
        local all = assert(address.parse_cidr("::/0"))
        assert.is_false(address.is_within({ 10, 0, 0, 5 }, all))
        all = assert(address.parse_cidr("0.0.0.0/0"))
        assert.is_true(address.is_within({ 10, 0, 0, 5 }, all))
    end)

    for _, text in ipairs({ "", "/8", "10.0.0.0/33", "::/129", "10.0.0.0/",
                            "10.0.0.0/-1", "10.0.0.0/8/8", "10/8", "web/8",
                            "10.0.0.0:80", "[::1]/128", "10.0.0.0/08",
                            "10.0.0.0/00", "fd00::/08", "10.0.0.0/+8" })
    do
        it("is never " .. ("%q"):format(text), function()
            local block, expected = address.parse_cidr(text)
            assert.is_nil(block)
            assert.matches("^an? ", expected)
        end)
    end

    -- a peer is never written so: such a block would hold none
    for _, text in ipairs({ "::ffff:10.0.0.0/8", "::ffff:10.0.0.0/104",
                            "::ffff:a00:0/104", "::ffff:10.0.0.5",
                            "0:0:0:0:0:FFFF:a00:5" })
    do
        it("is never " .. text .. ", IPv4 in disguise", function()
            local block, expected = address.parse_cidr(text)
            assert.is_nil(block)
            assert.same("the IPv4 block itself instead of its IPv6 form",
                        expected)
        end)
    end
end)


describe("a local address", function()
    for text, is_local in pairs({
        ["127.0.0.1"] = true, ["127.255.255.254"] = true, ["0.0.0.0"] = true,
        ["::1"] = true, ["::"] = true, ["128.0.0.1"] = false,
        ["10.0.0.1"] = false, ["0.0.0.1"] = false, ["::2"] = false,
        ["fe80::1"] = false, ["1::1"] = false,
    }) do
        it((is_local and "is " or "is not ") .. text, function()
            assert.same(is_local, address.is_local(address.parse_ip(text)))
        end)
    end
end)
