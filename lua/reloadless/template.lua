-- Text with nginx variables, as in nginx.conf: "$remote_addr", "${host}/$uri".

local concat = table.concat
local gmatch = string.gmatch
local ngx = ngx
local sub = string.sub

local _M = {}


--- @param text with variables
-- @return a function that gives the text for the current request; a variable
--   that is not set counts as empty
function _M.compile(text)
    local parts, names = {}, {}
    local function add(literal, name)
        parts[#parts + 1] = literal
        if name then
            parts[#parts + 1] = ""
            names[#parts] = name
        end
    end

    local from = 1
    for start, open, name, close, stop in
        gmatch(text, "()%$({?)([%w_]+)(}?)()")
    do
        if open == "" or close == "}" then
            add(sub(text, from, start - 1), name)
            -- the brace of "$name}" is text
            from = open == "" and stop - #close or stop
        end
    end
    add(sub(text, from))

    if #parts == 3 and parts[1] == "" and parts[3] == "" then
        local name = names[2]
        return function()
            return ngx.var[name] or ""
        end
    end

    return function()
        local var = ngx.var
        for i, name in pairs(names) do
            parts[i] = var[name] or ""
        end
        return concat(parts)
    end
end


return _M
