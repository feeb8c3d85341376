-- The head of an upstream as text: a line of settings, one with the number of
-- peers, and either the peers or, on one line, the chunks that hold them: of
-- each its first address and its id, in the order of addresses. So a change of
-- one peer touches one chunk, for the writer and for each worker that follows.
-- Pure.

local concat = table.concat
local gmatch = string.gmatch
local ipairs = ipairs
local match = string.match
local tonumber = tonumber

local _M = {}


--- The text of a head.
-- @param head { settings = text, peers = their number, and either body = the
--   peers as text, or firsts and ids = the first address and the id of each
--   chunk }
function _M.encode(head)
    local chunks = {}
    for i, id in ipairs(head.ids or {}) do
        chunks[i] = head.firsts[i] .. " " .. id
    end
    return concat({ head.settings, head.peers, concat(chunks, " "), head.body },
                  "\n")
end


--- @param text of encode
-- @return the head as encode takes it
function _M.decode(text)
    local settings, peers, chunks, body =
        match(text, "^(.-)\n(%d+)\n([^\n]*)\n?(.*)$")
    local head = { settings = settings, peers = tonumber(peers) }
    if chunks == "" then
        head.body = body
        return head
    end

    head.firsts, head.ids = {}, {}
    for first, id in gmatch(chunks, "(%S+) (%S+)") do
        head.firsts[#head.firsts + 1] = first
        head.ids[#head.ids + 1] = id
    end
    return head
end


return _M
