#!/usr/bin/env bash
# Installs the .deb in a fresh Debian, as an administrator would, and looks at what happens: tests/packages/scenario.sh has the steps.
#
#   tests/packages/debian.sh DEB [SUITE]    SUITE is bookworm (the default) or another release of Debian
#
# The Debian is a folder that base.sh has filled; nothing is written to it. Its own systemd runs in it, as process 1 of namespaces of
# its own, and the network there is a loopback device and nothing else. It needs root and leave to make namespaces: without, it says
# that nothing was tested.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
work=''
init=''

main() {
    local deb suite base
    deb=$(realpath -e "${1:?give the .deb, see the head of this file}")
    suite=${2:-bookworm}
    if [[ -z ${IN_OWN_MOUNTS-} ]]; then
        if ! unshare --mount --pid --net --cgroup --fork true 2>/dev/null; then
            printf '\nSKIPPED, NOTHING WAS TESTED: the .deb in %s: namespaces need root\n\n' "$suite" >&2
            exit 0
        fi
        IN_OWN_MOUNTS=yes exec unshare --mount --propagation private "$0" "$deb" "$suite"
    fi
    base=$("$here/base.sh" "$suite" systemd)
    work=$(mktemp -d "${TMPDIR:-/tmp}/longwire-debian.XXXXXX")
    trap clean_up EXIT
    # What is written stays in memory, and goes with this namespace.
    mount -t tmpfs -o mode=755 tmpfs "$work"
    mkdir "$work/cgroups" "$work/debian" "$work/written" "$work/overlay"
    mount -t cgroup2 cgroup2 "$work/cgroups"
    mount -t overlay -o "lowerdir=$base,upperdir=$work/written,workdir=$work/overlay" overlay "$work/debian"
    mkdir "$work/debian/test"
    cp "$deb" "$work/debian/test/longwire.deb"
    later_version "$deb" "$work/debian/test/longwire-later.deb"
    cp "$here/scenario.sh" "$work/debian/test/"
    # Nothing else shall hold the lock of apt.
    ln -s /dev/null "$work/debian/etc/systemd/system/apt-daily.timer"
    ln -s /dev/null "$work/debian/etc/systemd/system/apt-daily-upgrade.timer"
    boot
    if ! inside timeout 300 bash /test/scenario.sh; then
        inside journalctl --no-pager --boot --unit longwire --unit 'php*' --lines 60 >&2 || true
        echo "debian.sh: the scenario failed in $suite, see above" >&2
        exit 1
    fi
}

# The same package with a later version and other words in its configuration: an upgrade.
later_version() {
    local folder=$work/later
    dpkg-deb --raw-extract "$1" "$folder"
    sed -i 's/^Version: .*/&.1/' "$folder/DEBIAN/control"
    echo '# A later version says more here.' >>"$folder/etc/longwire/longwire.toml"
    # The file's checksum is no longer the one in md5sums.
    rm "$folder/DEBIAN/md5sums"
    dpkg-deb --build --root-owner-group -Zgzip -z1 "$folder" "$2" >/dev/null
    rm -r "$folder"
}

boot() {
    local group=$work/cgroups/longwire-test-$$ leader
    mkdir "$group"
    # A test that is killed takes its Debian with it.
    DEBIAN=$work/debian CGROUP=$group setpriv --pdeathsig KILL \
        unshare --mount --pid --uts --ipc --net --fork --kill-child bash -euc "$(declare -f enter become_init); enter" \
        </dev/null >"$work/console" 2>&1 &
    leader=$!
    for _ in {1..100}; do
        init=$(cat "/proc/$leader/task/$leader/children" 2>/dev/null || true)
        init=${init%% *}
        # It answers as soon as it is an init with a folder of its own.
        if [[ -n $init && -e "/proc/$init/root"/run/systemd/private ]]; then
            # "degraded" if a unit failed that has no device here.
            inside systemctl is-system-running --wait >/dev/null || true
            return
        fi
        kill -0 "$leader" 2>/dev/null || break
        sleep 0.1
    done
    cat "$work/console" >&2
    echo "debian.sh: systemd did not start" >&2
    exit 1
}

# In the namespaces, still with this machine's files. The control group becomes the root of its own namespace.
enter() {
    echo 0 >"$CGROUP/cgroup.procs"
    exec unshare --cgroup bash -euc "$(declare -f become_init); become_init"
}

become_init() {
    local node
    ip link set lo up
    cd "$DEBIAN"
    mount --bind . .
    cd "$DEBIAN"
    mount -t proc proc proc
    # Settings of the kernel are not this Debian's.
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs -o mode=755 tmpfs run
    mount -t tmpfs -o mode=755 tmpfs dev
    mkdir dev/pts dev/shm
    for node in null zero full random urandom tty; do
        touch "dev/$node"
        mount --bind "/dev/$node" "dev/$node"
    done
    mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
    mount -t tmpfs tmpfs dev/shm
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    pivot_root . mnt
    umount -l /mnt
    # As on a machine: otherwise services do not get their credentials, which systemd mounts for them.
    mount --make-rshared /
    cd /
    exec env -i container=longwire-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --unit=multi-user.target --log-target=journal
}

inside() {
    nsenter --target "$init" --mount --uts --ipc --net --pid --cgroup --root \
        env --chdir=/ -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/ LC_ALL=C.UTF-8 "$@" </dev/null
}

clean_up() {
    local status=$?
    trap - EXIT
    if [[ -n $init ]]; then
        # The end of process 1 ends everything in its namespaces.
        kill -KILL "$init" 2>/dev/null || true
        wait 2>/dev/null || true
    fi
    for _ in {1..50}; do
        find "$work/cgroups/longwire-test-$$" -depth -type d -exec rmdir {} + 2>/dev/null && break
        sleep 0.1
    done
    umount --lazy "$work" || true
    rmdir "$work" || true
    exit "$status"
}

main "$@"
