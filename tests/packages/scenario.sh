#!/usr/bin/env bash
# Runs in the fresh Debian of debian.sh, as root: installation, first frame, `longwire dev`, push, hardening, reload, watchdog, upgrade,
# drop-ins, PHP of the service's own, purge, a user that was there before. Each step says what it saw and fails with what it missed.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive

config=/etc/longwire/longwire.toml
web=ws://127.0.0.1:8088/ws

main() {
    install
    develop
    push_from_a_shell
    harden
    edit
    push_from_a_page
    reload
    watchdog
    upgrade
    drop_ins
    php_of_its_own
    purge
    own_user
}

say() { printf '   %-28s %s\n' "$1" "$2"; }

fail() {
    echo "scenario.sh: $1" >&2
    exit 1
}

main_pid() { systemctl show --property MainPID --value longwire; }

# Sends a frame until it is answered, by the service or at the URL that is given, for at most so many seconds.
frame_is_answered() {
    local deadline=$((SECONDS + $1)) url=${2:-$web}
    until [[ $(longwire connect "$url" --quiet --send hello --timeout 5s 2>&1) == hello ]]; do
        ((SECONDS < deadline)) || fail "no frame was answered within $1 s: $(longwire connect "$url" --send hello 2>&1)"
        sleep 0.2
    done
}

install() {
    local began=$EPOCHREALTIME
    apt-get install --yes --quiet --quiet /test/longwire.deb php-fpm >/tmp/apt.log 2>&1 || {
        cat /tmp/apt.log >&2
        fail "apt-get install failed"
    }
    local installed=$EPOCHREALTIME
    frame_is_answered 60
    say "installed" "by apt in $(seconds "$began" "$installed")"
    say "first frame" "$(seconds "$installed" "$EPOCHREALTIME") after the installation, by $(php_version)"
    longwire check --config $config >/tmp/check.log 2>&1 || fail "check finds something: $(cat /tmp/check.log)"
    ! grep -i 'warning' /tmp/check.log || fail "check warns: $(cat /tmp/check.log)"
    [[ $(systemctl is-enabled longwire) == enabled ]] || fail "the service is not enabled"
    local socket
    for socket in router api; do
        [[ $(stat --format '%U:%G %a' "/run/longwire/$socket.sock") == 'longwire:www-data 660' ]] || fail "$(stat "/run/longwire/$socket.sock")"
    done
    # Nothing else but what the configuration names listens, and only this machine can connect.
    [[ $(listening) == $'127.0.0.1:8088\n127.0.0.1:9011' ]] || fail "it listens on: $(listening)"
}

# The first two commands of README.md on one machine: the service runs, and so does `longwire dev`.
develop() {
    local dev
    longwire dev /usr/share/longwire/examples/echo/handler.php >/tmp/dev.log 2>&1 &
    dev=$!
    frame_is_answered 20 ws://127.0.0.1:8080/ws
    kill "$dev" || fail "longwire dev does not run beside the service: $(cat /tmp/dev.log)"
    wait "$dev" || fail "longwire dev ended with $?: $(cat /tmp/dev.log)"
    say "longwire dev" "runs beside the service"
}

# Addresses of listening TCP sockets, from the kernel's table: hexadecimal, the address backwards.
listening() {
    awk '$4 == "0A" { print $2 }' /proc/net/tcp | sort | while IFS=: read -r address port; do
        printf '%d.%d.%d.%d:%d\n' "0x${address:6:2}" "0x${address:4:2}" "0x${address:2:2}" "0x${address:0:2}" "0x$port"
    done
    awk '$4 == "0A" { print $2 }' /proc/net/tcp6
}

seconds() { awk -v from="$1" -v to="$2" 'BEGIN { printf "%.1f s", to - from }'; }

php_version() { php -r 'echo "PHP ", PHP_VERSION;'; }

# A client that stays connected and expects one push. Returns when it has been answered: a push must not overtake that answer.
client() {
    printf 'send first\nexpect first\nexpect %s\n' "$1" >/tmp/orders
    : >/tmp/client.log
    longwire connect "$web" --exec /tmp/orders --timeout 20s >/tmp/client.log 2>&1 &
    client=$!
    for _ in {1..100}; do
        ! grep -q '^< first' /tmp/client.log || return 0
        sleep 0.1
    done
    fail "the client did not connect: $(cat /tmp/client.log)"
}

client_got_it() {
    wait "$client" || fail "the push did not arrive: $(cat /tmp/client.log)"
}

push_from_a_shell() {
    local said
    client news
    said=$(setpriv --reuid=www-data --regid=www-data --init-groups php /usr/share/longwire/examples/push.php \
        --router unix:/run/longwire/router.sock news)
    client_got_it
    say "push by www-data" "$said"
    ! setpriv --reuid=nobody --regid=nogroup --clear-groups php /usr/share/longwire/examples/push.php \
        --router unix:/run/longwire/router.sock news >/tmp/nobody.log 2>&1 || fail "nobody may push too"
    grep -q 'Permission denied' /tmp/nobody.log || fail "nobody was refused for another reason: $(cat /tmp/nobody.log)"
}

harden() {
    local exposure files
    systemd-analyze verify --man=no longwire.service || fail "systemd-analyze verify complains"
    exposure=$(low_exposure)
    say "systemd-analyze security" "$exposure"
    [[ $(systemctl show --property LimitNOFILE --value longwire) == 1048576 ]] || fail "LimitNOFILE is another one"
    # In some containers process 1 may not raise the limit (CAP_SYS_RESOURCE).
    files=1048576
    (((0x$(awk '/^CapEff/ { print $2 }' /proc/1/status) >> 24) & 1)) || files=$(ulimit -Hn)
    [[ $(awk '/^Max open files/ { print $5 }' "/proc/$(main_pid)/limits") == "$files" ]] || fail "LimitNOFILE is not in force"
    for _ in {1..3}; do frame_is_answered 5; done
    [[ $(systemctl show --property NRestarts --value longwire) == 0 ]] || fail "the service was restarted"
}

# Prints what `systemd-analyze security` says of the service. docs/install.md promises less than 2, also for PHP of the service's own.
low_exposure() {
    local exposure
    exposure=$(systemd-analyze security --no-pager longwire.service | sed -n 's/.*exposure level for longwire.service: \([0-9.]*\).*/\1/p')
    awk -v found="$exposure" 'BEGIN { exit !(found > 0 && found < 2) }' || fail "exposure is $exposure"
    echo "$exposure"
}

# A page beside the socket, as an administrator would add one.
edit() {
    sed -i 's|^routes = .*|routes = { "/ws" = "echo", "/page" = "page" }|' $config
    cat >>$config <<'TOML'

[apps.page]
upstream = "php"
script = "/srv/page.php"
plain_requests = true
TOML
    cat >/srv/page.php <<'PHP'
<?php
require '/usr/share/longwire/api.php';
$receipt = (new RouterClient($_SERVER['LONGWIRE_ROUTER']))->sendAllMsg('from a page');
echo posix_getpwuid(posix_geteuid())['name'], ' reached ', $receipt['reached'];
PHP
    systemctl stop longwire
    longwire check --config $config >/tmp/check.log 2>&1 || fail "check finds something while the service is stopped: $(cat /tmp/check.log)"
    systemctl start longwire
}

page() { php -r 'echo file_get_contents("http://127.0.0.1:8088/page");'; }

push_from_a_page() {
    local said
    frame_is_answered 10
    client 'from a page'
    said=$(page)
    [[ $said == 'www-data reached 1' ]] || fail "the page says: $said"
    client_got_it
    say "push by a page" "$said"
}

reload() {
    local before
    before=$(main_pid)
    systemctl reload longwire || fail "reload failed"
    frame_is_answered 5
    [[ $(main_pid) == "$before" && $(systemctl is-active longwire) == active ]] || fail "a reload restarts the service"
    say "reload" "the same process"
}

# With a shorter time than that of the unit: a node that runs stays, a node that hangs is started again.
watchdog() {
    local before
    [[ $(systemctl show --property WatchdogUSec --value longwire) == 30s ]] || fail "WatchdogSec is not in force"
    mkdir -p /run/systemd/system/longwire.service.d
    printf '[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n' >/run/systemd/system/longwire.service.d/watchdog.conf
    systemctl daemon-reload
    systemctl restart longwire
    before=$(main_pid)
    sleep 4
    [[ $(main_pid) == "$before" ]] || fail "the watchdog ends a node that runs"
    kill -STOP "$before"
    frame_is_answered 20
    [[ $(systemctl show --property NRestarts --value longwire) == 1 ]] || fail "a node that hangs is not started again"
    rm -r /run/systemd/system/longwire.service.d
    systemctl daemon-reload
    systemctl restart longwire
    frame_is_answered 10
    say "watchdog" "a node that hung was started again"
}

upgrade() {
    local before edited
    before=$(main_pid)
    edited=$(sha256sum <$config)
    # The package brings another configuration: dpkg keeps the edited one when it is told so, or by its default answer.
    apt-get install --yes --quiet --quiet -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold \
        /test/longwire-later.deb >/tmp/apt.log 2>&1 || fail "$(cat /tmp/apt.log)"
    [[ $(sha256sum <$config) == "$edited" ]] || fail "the edited configuration is gone"
    [[ -e $config.dpkg-dist ]] || fail "the new configuration is not beside the edited one"
    frame_is_answered 10
    [[ $(main_pid) != "$before" ]] || fail "the old program still runs"
    [[ $(page) == 'www-data reached 0' ]] || fail "the page of the edited configuration is gone"
    say "upgrade" "to $(dpkg-query --show --showformat '${Version}' longwire), with the edited configuration"
}

# What docs/install.md says of a secret that only root can read, and of a port below 1024.
drop_ins() {
    cp $config /tmp/before.toml
    (umask 077 && echo 'a text of many characters' >/etc/longwire/router.secret)
    mkdir -p /etc/systemd/system/longwire.service.d
    cat >/etc/systemd/system/longwire.service.d/override.conf <<'UNIT'
[Service]
LoadCredential=router:/etc/longwire/router.secret
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
AmbientCapabilities=CAP_NET_BIND_SERVICE
UNIT
    sed -i -e 's|^bind = "127.0.0.1:8088"|bind = "127.0.0.1:80"|' -e '/^\[router.socket\]/,/^group/d' -e \
        's|^bind = "unix:/run/longwire/router.sock"|bind = "127.0.0.1:9010"\nsecret = "file:/run/credentials/longwire.service/router"|' $config
    systemctl daemon-reload
    systemctl restart longwire || fail "the service does not start with a credential and a low port"
    frame_is_answered 10 ws://127.0.0.1:80/ws
    [[ $(listening) == $'127.0.0.1:80\n127.0.0.1:9010\n127.0.0.1:9011' ]] || fail "it listens on: $(listening)"
    longwire check --config $config >/tmp/check.log 2>&1 || fail "check finds something: $(cat /tmp/check.log)"
    say "drop-ins" "a credential, and port 80"
    rm -r /etc/systemd/system/longwire.service.d /etc/longwire/router.secret
    cp /tmp/before.toml $config
    systemctl daemon-reload
}

# php-fpm started by Longwire, with the drop-in from the examples. It compiles regular expressions, for which it needs memory that it can
# write and execute.
php_of_its_own() {
    local exposure
    mkdir -p /etc/systemd/system/longwire.service.d
    cp /usr/share/doc/longwire/examples/spawn.conf /etc/systemd/system/longwire.service.d/
    sed -i -e 's|^\[upstreams.php\]|[upstreams.php.spawn]\nworkers = 2|' -e '/^backends = /d; /^max_connections = /d' \
        -e 's|/usr/share/longwire/examples/echo/handler.php|/srv/regular.php|' $config
    cat >/srv/regular.php <<'PHP'
<?php
$found = preg_match('/^h(.)l{2}o$/', file_get_contents('php://input'));
echo $found === 1 && preg_last_error() === PREG_NO_ERROR ? 'hello' : 'no: ' . preg_last_error_msg();
PHP
    systemctl daemon-reload
    [[ $(systemctl show --property MemoryDenyWriteExecute --value longwire) == no ]] || fail "the drop-in has no effect"
    systemctl restart longwire
    frame_is_answered 10
    ! journalctl --no-pager --unit longwire | grep -i 'JIT' || fail "PHP has no memory for its JIT"
    exposure=$(low_exposure)
    say "PHP of its own" "answers; systemd-analyze security: $exposure"
    rm -r /etc/systemd/system/longwire.service.d
}

purge() {
    local uid gid left
    uid=$(id --user longwire) gid=$(id --group longwire)
    touch /var/lib/longwire/state
    chown longwire: /var/lib/longwire/state
    apt-get purge --yes --quiet --quiet longwire >/tmp/apt.log 2>&1 || fail "$(cat /tmp/apt.log)"
    [[ -z $(pgrep_uid "$uid") ]] || fail "processes are left: $(pgrep_uid "$uid")"
    ! getent passwd longwire || fail "the user is left"
    ! getent group longwire || fail "the group is left"
    ! getent group www-data | grep longwire || fail "the user is still a member of www-data"
    left=$(find / -xdev \( -path /proc -o -path /sys -o -path /test -o -path /tmp -o -path /var/log \) -prune -o \
        \( -iname '*longwire*' -o -uid "$uid" -o -gid "$gid" \) -print; find /run \( -iname '*longwire*' -o -uid "$uid" -o -gid "$gid" \))
    [[ -z $left ]] || fail "files are left: $left"
    ! systemctl list-units --all --no-legend 'longwire*' | grep longwire || fail "the unit is left"
    say "purge" "nothing is left"
}

# An account of the same name that the package has not made.
own_user() {
    useradd --home-dir /srv/longwire --create-home --shell /bin/bash longwire
    apt-get install --yes --quiet --quiet /test/longwire.deb >/tmp/apt.log 2>&1 || fail "$(cat /tmp/apt.log)"
    apt-get purge --yes --quiet --quiet longwire >/tmp/apt.log 2>&1 || fail "$(cat /tmp/apt.log)"
    getent passwd longwire | grep -q ':/srv/longwire:' || fail "the purge has removed a user that was there before"
    userdel --remove longwire 2>/tmp/userdel.log || fail "$(cat /tmp/userdel.log)"
    say "a user that was there before" "stays at a purge"
}

pgrep_uid() { find /proc -maxdepth 1 -name '[0-9]*' -uid "$1" 2>/dev/null; }

main "$@"
