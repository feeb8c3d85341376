-- Text with nginx variables, as in nginx.conf: "$remote_addr", "${host}/$uri".

local concat = table.concat
local format = string.format
local gmatch = string.gmatch
local loadstring = loadstring
local min = math.min
local sub = string.sub

local _M = {}

-- LuaJIT joins no more than some 190 values in one expression: see
-- docs/discoveries/long-concatenations.md
local group_size = 100


--- @param text with variables
-- @return a function that gives the text for the current request; a variable
--   that is not set counts as empty. It is made of Lua code without loops,
--   which LuaJIT compiles best.
function _M.compile(text)
    local parts = {}
    local from = 1
    local function add_literal(upto)
        if upto >= from then
            parts[#parts + 1] = format("%q", sub(text, from, upto))
        end
    end

    for start, open, name, close, stop in
        gmatch(text, "()%$({?)([%w_]+)(}?)()")
    do
        if open == "" or close == "}" then
            add_literal(start - 1)
            parts[#parts + 1] = format('(var[%q] or "")', name)
            -- the brace of "$name}" is text
            from = open == "" and stop - #close or stop
        end
    end
    add_literal(#text)

    local groups = {}
    for i = 1, #parts, group_size do
        groups[#groups + 1] =
            concat(parts, " .. ", i, min(i + group_size - 1, #parts))
    end
    return loadstring("local var = ngx.var return function() return ("
                      .. concat(groups, ") .. (") .. ") end")()
end


return _M
