-- Two peers drawn by weight, and of them the one with fewer requests of this
-- worker for its weight: nginx's "random two least_conn".

local sampled = require("reloadless.balance.picker.sampled")


return sampled(function(peer, weight)
    return peer.active / weight
end)
