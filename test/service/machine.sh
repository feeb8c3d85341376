#!/bin/sh
# A machine of its own for a test: boots the systemd of the Debian under BASE,
# which stays as it is, in namespaces of its own. What it writes is in a tmpfs on
# the folder WORK. Run it in a mount namespace of its own: all mounts end with it.
#
#   machine.sh BASE WORK

set -eu
base=$1 work=$2
boot=$(dirname "$0")/boot.sh

mount -t tmpfs tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root" "$work/cgroup"
mount -t overlay overlay "$work/root" \
    -o "lowerdir=$base,upperdir=$work/upper,workdir=$work/work"
touch "$work/console"

# What systemd takes for the root of the control groups is one of ours.
mount -t cgroup2 cgroup2 "$work/cgroup"
remove_groups() {
    find "$work/cgroup" -depth -type d -path "*/reloadless-machine.*" \
        -exec rmdir {} + 2>/dev/null || true
}
# Those of a run that was killed.
remove_groups
group=$work/cgroup/reloadless-machine.$$
mkdir "$group"

# Who wants to reboot ends with SIGHUP, who halts with SIGINT: reboot(2).
while status=0; sh -c 'echo $$ >"$1/cgroup.procs"; shift; exec "$@"' - "$group" \
    setpriv --pdeathsig KILL \
    unshare --mount --pid --net --ipc --uts --cgroup --fork --kill-child \
    sh "$boot" "$work" || status=$?; [ $status = 129 ]
do :; done
remove_groups
