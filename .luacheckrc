std = "ngx_lua"
max_line_length = 80
files["test/lua"].std = "ngx_lua+busted"
files["test/lua"].ignore = { "143/ngx" }
