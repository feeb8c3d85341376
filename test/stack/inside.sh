#!/bin/sh
# Runs a command in the Debian under ROOT, in this checkout. It must be the first
# process of a mount and a PID namespace of its own: all that it mounts and starts
# ends with it.
#
#   inside.sh ROOT NODE CONSUL COMMAND…

set -eu
root=$1 node=$2 consul=$3
shift 3
checkout=$(cd "$(dirname "$0")/../.." && pwd)

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
mkdir -p "$root/checkout"
mount --bind "$checkout" "$root/checkout"
# The node that runs the other tests: what is looked at here is nginx.
for command in "$node" "$consul"; do
    in_root=$root/usr/local/bin/$(basename "$command")
    touch "$in_root"
    mount --bind "$command" "$in_root"
done

chroot "$root" sh -c 'cd /checkout && "$@"' sh "$@"
