-- What the pure modules take of nginx when they are loaded, and one seed for
-- all random tests, so that a failure comes again.

local bit = require("bit")

local crc_of_byte = {}
for i = 0, 255 do
    local crc = i
    for _ = 1, 8 do
        local odd = bit.band(crc, 1) == 1
        crc = bit.rshift(crc, 1)
        crc = odd and bit.bxor(crc, 0xedb88320) or crc
    end
    crc_of_byte[i] = crc
end

local clock = { now = 1000 }

-- CRC-32 of ISO 3309, as nginx has it
local function crc32(text)
    local crc = -1
    for i = 1, #text do
        local byte = bit.band(bit.bxor(crc, text:byte(i)), 255)
        crc = bit.bxor(crc_of_byte[byte], bit.rshift(crc, 8))
    end
    return bit.bxor(crc, -1) % 2 ^ 32
end


rawset(_G, "ngx", {
    get_phase = function()
        return "init"
    end,
    null = require("cjson").null,
    shared = { reloadless_inflight = {} },
    crc32_long = crc32,
    crc32_short = crc32,
    -- for specs: the time that the clock gives
    clock = clock,
})

package.loaded["reloadless.shared.clock"] = {
    now = function()
        return clock.now
    end,
}

math.randomseed(20)
