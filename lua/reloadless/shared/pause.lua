-- Lets a worker serve others in the midst of long work for the admin API. At
-- start, nginx serves nobody yet, and the work goes on without a pause.

local ngx = ngx

local _M = {}

-- Peers that are checked or written in a few milliseconds.
local slice = 1000

-- in this turn of nginx's event loop
local done = 0


--- A request begins: what those before it have done is over.
function _M.reset()
    done = 0
end


--- Counts work, and pauses when much has been done without a pause.
-- @param peers as many as would have cost the same
function _M.after(peers)
    done = done + peers
    if done < slice then
        return
    end

    done = 0
    if ngx.get_phase() == "content" then
        -- sleep(0) lets nobody in: see docs/discoveries/sleep-zero.md
        ngx.sleep(0.001)
    end
end


return _M
