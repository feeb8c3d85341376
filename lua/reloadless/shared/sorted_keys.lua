-- The keys of an object in order.

local pause = require("reloadless.shared.pause")

local pairs = pairs
local sort = table.sort

-- sort cannot pause, so it gets no more at once
local most = 1000


local function merge(one, other)
    local merged, i, k = {}, 1, 1
    for at = 1, #one + #other do
        if not other[k] or one[i] and one[i] < other[k] then
            merged[at], i = one[i], i + 1
        else
            merged[at], k = other[k], k + 1
        end
        pause.after(0.1)
    end
    return merged
end


-- @return the keys, which are strings, sorted
return function(object)
    local runs, keys = {}, {}
    for key in pairs(object) do
        if #keys == most then
            sort(keys)
            runs[#runs + 1], keys = keys, {}
            pause.after(most / 4)
        end
        keys[#keys + 1] = key
    end
    sort(keys)
    runs[#runs + 1] = keys

    while #runs > 1 do
        local merged = {}
        for i = 1, #runs, 2 do
            merged[#merged + 1] = runs[i + 1] and merge(runs[i], runs[i + 1])
                                  or runs[i]
        end
        runs = merged
    end
    return runs[1]
end
