-- The cookie of a sticky upstream.

local format = string.format
local gsub = string.gsub
local type = type
local upper = string.upper

local _M = {}


local function attributes_of(sticky)
    local text = "; Path=" .. (sticky.path or "/")
    if sticky.domain then
        text = text .. "; Domain=" .. sticky.domain
    end
    if sticky.max_age then
        text = text .. format("; Max-Age=%d", sticky.max_age)
    end
    if sticky.secure then
        text = text .. "; Secure"
    end
    if sticky.http_only ~= false then
        text = text .. "; HttpOnly"
    end
    local same_site = gsub(sticky.same_site or "lax", "^%l", upper)
    return text .. "; SameSite=" .. same_site
end


--- @param sticky of the settings: a name, an object, or nil
-- @return nginx's variable of the cookie, and a function that gives the
--   Set-Cookie of a token; false when the upstream is not sticky
function _M.of(sticky)
    if not sticky then
        return false, false
    end
    if type(sticky) == "string" then
        sticky = { cookie = sticky }
    end

    local attributes = attributes_of(sticky)
    return "cookie_" .. sticky.cookie, function(token)
        return sticky.cookie .. "=" .. token .. attributes
    end
end


return _M
