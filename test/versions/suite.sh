#!/bin/sh
# Runs in the Debian under ROOT the tests of this checkout that start nginx, and
# the Lua specs. It must be the first process of a mount and a PID namespace of
# its own: all that it mounts and starts ends with it.
#
#   suite.sh ROOT NODE CONSUL

set -eu
root=$1 node=$2 consul=$3
checkout=$(cd "$(dirname "$0")/../.." && pwd)

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/checkout"
mount --bind "$checkout" "$root/checkout"
# The node that runs the other tests: what is tested here is nginx.
for command in "$node" "$consul"; do
    in_root=$root/usr/local/bin/$(basename "$command")
    touch "$in_root"
    mount --bind "$command" "$in_root"
done

chroot "$root" sh -c '
    cd /checkout
    busted --lua=luajit --output=TAP test/lua || failed=1
    node --import tsx --test --test-reporter=tap \
        test/integration/*.test.ts test/faults/*.test.ts || failed=1
    exit "${failed:-0}"'
