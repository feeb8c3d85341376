-- Random bytes that nobody foretells.

local open = io.open


-- @param count of them
-- @return a string
return function(count)
    local file = assert(open("/dev/urandom", "rb"))
    local bytes = file:read(count)
    file:close()
    return bytes
end
