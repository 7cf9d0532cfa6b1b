#!/usr/bin/env bash
# Runs the static program where there is nothing else, and on the oldest Debian that can be had, in front of a FastCGI responder on TCP.
#
#   tests/packages/static.sh LONGWIRE [SUITE]    LONGWIRE is a static binary, SUITE an old release (bullseye: glibc 2.31)
#
# It runs in namespaces of its own, where a loopback device is all the network. It needs root.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=''

main() {
    local longwire suite base
    longwire=$(realpath -e "${1:?give a static binary, see the head of this file}")
    suite=${2:-bullseye}
    if [[ -z ${IN_OWN_NETWORK-} ]]; then
        if ! unshare --mount --net --pid --fork true 2>/dev/null; then
            printf '\nSKIPPED, NOTHING WAS TESTED: the static program: namespaces need root\n\n' >&2
            exit 0
        fi
        # With the network of this machine, in mounts that end with it.
        base=$(unshare --mount --propagation private "$here/base.sh" "$suite" bare)
        IN_OWN_NETWORK=yes BASE=$base exec setpriv --pdeathsig KILL unshare --mount --net --pid --fork --kill-child --mount-proc \
            --propagation private "$0" "$longwire" "$suite"
    fi
    ! ldd "$longwire" >/dev/null 2>&1 || [[ $(ldd "$longwire") == *'statically linked'* ]] || fail "$longwire is not static"
    work=$(mktemp -d "${TMPDIR:-/tmp}/longwire-static.XXXXXX")
    trap 'cd /; umount --lazy "$work"; rmdir "$work"' EXIT
    mount -t tmpfs -o mode=755 tmpfs "$work"
    ip link set lo up
    responder

    mkdir "$work/empty" "$work/names" "$work/old"
    serves_an_echo "$work/empty" 127.0.0.1 0 "an empty folder"
    mkdir "$work/names/etc"
    serves_an_echo "$work/names" responder.test people "an empty folder with /etc/hosts and /etc/group"
    mkdir "$work/written" "$work/overlay"
    mount -t overlay -o "lowerdir=$BASE,upperdir=$work/written,workdir=$work/overlay" overlay "$work/old"
    serves_an_echo "$work/old" responder.test people "$suite, $(chroot "$work/old" ldd --version | head -n 1)"
}

fail() {
    echo "static.sh: $1" >&2
    exit 1
}

responder() {
    cc -O1 -o "$work/echo" "$here/../responders/echo.c" -lfcgi || fail "libfcgi-dev is not installed: run tests/install-deps.sh test"
    # All addresses of a network that has only the loopback device.
    "$work/echo" :9000 1 &
}

# With the program, its configuration and /proc; and with two names to look up, if the arguments are names.
serves_an_echo() {
    local folder=$1 host=$2 group=$3 where=$4 node
    cp "$longwire" "$folder/longwire"
    mkdir -p "$folder/proc"
    mount --rbind /proc "$folder/proc"
    if [[ -d $folder/etc ]]; then
        echo "127.0.0.1 $host" >>"$folder/etc/hosts"
        echo "$group:x:4321:" >>"$folder/etc/group"
    fi
    cat >"$folder/longwire.toml" <<TOML
[admin]
bind = "127.0.0.1:9011"
[router]
bind = "unix:/router.sock"
[router.socket]
mode = "0660"
group = "$group"
[listeners.tcp]
bind = "127.0.0.1:9005"
app = "echo"
[apps.echo]
upstream = "responder"
script = "/handler"
check_script = false
params = { NOTES = "$work/notes" }
[upstreams.responder]
backends = ["$host:9000"]
TOML
    chroot "$folder" /longwire serve --config /longwire.toml >"$work/log" 2>&1 &
    node=$!
    for _ in {1..50}; do
        ! chroot "$folder" /longwire health --config /longwire.toml >/dev/null 2>&1 || break
        sleep 0.1
    done
    [[ $(chroot "$folder" /longwire connect tcp://127.0.0.1:9005 --quiet --send 'nothing else here') == 'nothing else here' ]] ||
        fail "no echo in $where: $(cat "$work/log")"
    if [[ -d $folder/etc ]]; then
        [[ $(stat --format %g "$folder/router.sock") == 4321 ]] || fail "the group's name was not found in $where"
    fi
    kill -TERM "$node"
    wait "$node" || fail "it did not end well in $where: $(cat "$work/log")"
    umount --lazy "$folder/proc"
    echo "   the static program serves in $where"
}

main "$@"
