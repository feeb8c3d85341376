#!/bin/sh
# As the image's own does when it may not change users.
test "$1" = agent && test -n "$CONSUL_DISABLE_PERM_MGMT" || exit 1
shift
exec consul agent -data-dir=/consul/data -config-dir=/consul/config "$@"
