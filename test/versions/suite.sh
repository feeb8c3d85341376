#!/bin/sh
# Runs the Lua specs and the tests that start nginx, in the folder of the checkout.
busted --lua=luajit --output=TAP test/lua || failed=1
node --import tsx --test --test-reporter=tap \
    test/integration/*.test.ts test/faults/*.test.ts || failed=1
exit "${failed:-0}"
