-- What the pure modules take of nginx when they are loaded, and one seed for
-- all random tests, so that a failure comes again.

rawset(_G, "ngx", { null = require("cjson").null })

math.randomseed(20)
