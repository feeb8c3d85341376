-- Proves that each shared dict has one file that calls it and knows its keys:
-- no other can reach it.

local owners = {
    ["lua/reloadless/table/dict.lua"] = "reloadless",
    ["lua/reloadless/shared/counters.lua"] = "reloadless_counters",
    ["lua/reloadless/shared/inflight.lua"] = "reloadless_inflight",
}


-- @return the code of a file, without comments and names of modules
local function code(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return (text:gsub("%-%-[^\n]*", ""):gsub("reloadless%.shared%.", ""))
end


describe("a shared dict", function()
    it("is taken from nginx by its owner alone", function()
        local taken = {}
        for path in io.popen("find lua -name '*.lua'"):lines() do
            for name in code(path):gmatch("[.\"']shared%f[^%w_](.?[%w_]*)") do
                assert(name == "." .. (owners[path] or ""),
                       path .. " takes ngx.shared" .. name)
                taken[path] = true
            end
        end
        for path, name in pairs(owners) do
            assert(taken[path], path .. " does not take " .. name)
        end
    end)

    it("is not handed on by its owner", function()
        for path, name in pairs(owners) do
            local module = path:match("^lua/(.*)%.lua$"):gsub("/", ".")
            local dict, loaded = {}, package.loaded[module]
            local before = ngx.shared[name]
            package.loaded[module], ngx.shared[name] = nil, dict
            for field, value in pairs(require(module)) do
                assert(value ~= dict, path .. " hands it on as " .. field)
            end
            package.loaded[module], ngx.shared[name] = loaded, before
        end
    end)
end)
