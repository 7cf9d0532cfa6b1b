#!/usr/bin/env bash
# Runs three Longwire nodes on this machine, joined by Redis or NATS, with HAProxy in front and one php-fpm with the chat of
# php-examples behind them. Kill a process and see how the rest reacts.
#
#   tests/cluster.sh LONGWIRE    LONGWIRE is the path of the binary; `make cluster` builds one
#
#   ENGINE=nats      the engine that joins the nodes: redis (the default) or nats
#   PORT=8080        the balancer's port; everything else uses the 51 ports after it (8080 to 8131), see below
#   AGAIN_AFTER=10   seconds until a killed process is restarted, as systemd would do; 0 disables restarts
#
# Everything listens on 127.0.0.1 and keeps its files in one temporary folder. Ctrl-C stops it and leaves nothing behind. After
# SIGKILL nothing is left either: the kernel ends the started processes, and a process that waits for that removes the folder.
set -euo pipefail

# Debian has php-fpm, haproxy and nats-server in /usr/sbin, which is often not in PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin
engine=${ENGINE:-redis}
port=${PORT:-8080}
again_after=${AGAIN_AFTER:-10}
root=$(cd "$(dirname "$0")/.." && pwd)
nodes=(1 2 3)

direct_port() { echo $((port + $1)); }
balanced_port() { echo $((port + 10 + $1)); }
router_port() { echo $((port + 20 + $1)); }
api_port() { echo $((port + 30 + $1)); }
admin_port() { echo $((port + 40 + $1)); }
stats_port=$((port + 50))
engine_port=$((port + 51))

declare -A pid_of=()
dir=''
janitor=''

main() {
    longwire=$(realpath -e "${1:?give the path of a longwire binary, see the head of this file}")
    [[ $engine == redis || $engine == nats ]] || fail "ENGINE must be redis or nats, not $engine"
    [[ $port =~ ^[0-9]+$ ]] && ((port > 0 && port + 51 < 65536)) || fail "PORT must be from 1 to 65484, not $port"
    find_programs
    look_for_taken_ports

    trap 'stop; exit 0' INT TERM HUP
    trap stop EXIT
    dir=$(mktemp -d "${TMPDIR:-/tmp}/longwire-cluster.XXXXXX")
    # Removes the folder after the end of this script. It has its own session, so that Ctrl-C or the end of the terminal does not end it.
    setsid sh -c 'tail --pid="$1" --follow /dev/null; sleep 1; rm -rf "$2"' sh $$ "$dir" </dev/null >/dev/null 2>&1 &
    janitor=$!
    disown $janitor
    write_configurations

    start php-fpm
    start "$engine"
    wait_for php-fpm test -S "$dir/php-fpm.sock"
    wait_for "$engine" listens "$engine_port"
    for node in "${nodes[@]}"; do start "node-$node"; done
    for node in "${nodes[@]}"; do wait_for "node-$node" answers "$(admin_port "$node")" /ready; done
    start haproxy
    wait_for haproxy answers "$port" /
    greet
    watch_over
}

# ---- Processes -----------------------------------------------------------------------------------------------------------

find_programs() {
    local name
    php_fpm=$(command -v php-fpm || ls -v /usr/sbin/php-fpm[78]* 2>/dev/null | tail -n 1) || true
    [[ -n $php_fpm ]] || fail "php-fpm is not installed: run tests/install-deps.sh cluster"
    for name in haproxy "$engine-server" setsid setpriv; do
        command -v "$name" >/dev/null || fail "$name is not installed: run tests/install-deps.sh cluster"
    done
}

look_for_taken_ports() {
    local node
    is_free "$port" 'the balancer'
    for node in "${nodes[@]}"; do
        is_free "$(direct_port "$node")" "node $node"
        is_free "$(balanced_port "$node")" "node $node, for the balancer"
        is_free "$(router_port "$node")" "the router of node $node"
        is_free "$(api_port "$node")" "the HTTP API of node $node"
        is_free "$(admin_port "$node")" "health and metrics of node $node"
    done
    is_free "$stats_port" "the balancer's statistics"
    is_free "$engine_port" "$engine"
}

is_free() {
    ! listens "$1" || fail "127.0.0.1:$1 is already in use, but $2 needs it; PORT=18080 uses 18080 to 18131 instead"
}

write_configurations() {
    local node user='' check
    # php-fpm runs as root only if it is told to.
    ((EUID != 0)) || user=$'user = root\ngroup = root'
    mkdir "$dir/tmp"
    cat >"$dir/php-fpm.conf" <<END
[global]
error_log = /dev/stderr
log_level = warning

; Its name stands in the titles of its processes.
[chat-$port]
$user
listen = $dir/php-fpm.sock
listen.mode = 0600
pm = static
; Four for each node, see max_connections.
pm.max_children = 12
END
    for node in "${nodes[@]}"; do
        cat >"$dir/node-$node.toml" <<END
[node]
name = "node-$node"
number = $node

[cluster]
engine = "$engine"
urls = ["$engine://127.0.0.1:$engine_port"]

[limits]
drain_timeout = "3s"

[log]
level = "info,longwire::event=debug"

[admin]
bind = "127.0.0.1:$(admin_port "$node")"

[router]
bind = "127.0.0.1:$(router_port "$node")"

[api]
bind = "127.0.0.1:$(api_port "$node")"

# For the balancer, which sends a PROXY header with the client's address.
[listeners.balanced]
bind = "127.0.0.1:$(balanced_port "$node")"
protocol = "http"
routes = { "/ws" = "chat" }
static = '$root/php-examples/chat'
proxy_protocol = ["127.0.0.1"]

# For clients that want exactly this node.
[listeners.direct]
bind = "127.0.0.1:$(direct_port "$node")"
protocol = "http"
routes = { "/ws" = "chat" }
static = '$root/php-examples/chat'

[apps.chat]
upstream = "php"
script = '$root/php-examples/chat/handler.php'
events = ["connect", "close"]

[upstreams.php]
backends = ['unix:$dir/php-fpm.sock']
max_connections = 4
END
    done
    {
        cat <<END
global
    maxconn 4000

defaults
    mode tcp
    timeout connect 1s
    timeout client 1h
    timeout client-fin 30s
    timeout server 1h
    # A killed node refuses connections; then HAProxy tries the next one.
    retries 3
    option redispatch 1

frontend chat
    bind 127.0.0.1:$port
    # Without the engine no node is ready, but each one still serves its own sessions.
    use_backend living if { nbsrv(ready) eq 0 }
    default_backend ready

frontend statistics
    mode http
    bind 127.0.0.1:$stats_port
    timeout client 10s
    stats enable
    stats uri /
    stats refresh 2s
END
        for check in ready living; do
            cat <<END

backend $check
    # Sessions last long, so a new one goes to the node with the fewest.
    balance leastconn
    option httpchk GET /$([[ $check == ready ]] && echo ready || echo live)
    default-server check inter 500ms fall 2 rise 1 send-proxy-v2
END
            for node in "${nodes[@]}"; do
                echo "    server node-$node 127.0.0.1:$(balanced_port "$node") port $(admin_port "$node")"
            done
        done
    } >"$dir/haproxy.cfg"
}

# Sets `command`, and `signal`, which the kernel sends to it if this script is killed.
describe() {
    signal=KILL
    case $1 in
        php-fpm)
            command=("$php_fpm" --nodaemonize --fpm-config "$dir/php-fpm.conf" -d "sys_temp_dir=$dir/tmp")
            ((EUID != 0)) || command+=(--allow-to-run-as-root)
            # With SIGTERM its master ends the workers too.
            signal=TERM
            ;;
        redis) command=(redis-server --bind 127.0.0.1 --port "$engine_port" --save '' --dir "$dir" --loglevel warning) ;;
        nats) command=(nats-server --addr 127.0.0.1 --port "$engine_port") ;;
        haproxy) command=(haproxy -db -f "$dir/haproxy.cfg") ;;
        node-*) command=("$longwire" serve --config "$dir/$1.toml") ;;
        *) fail "unknown process $1" ;;
    esac
}

start() {
    local command signal
    describe "$1"
    # Each in its own session, so that Ctrl-C goes only to this script, which stops them one after the other.
    setsid setpriv --pdeathsig "$signal" "${command[@]}" </dev/null > >(label "$1") 2>&1 &
    pid_of[$1]=$!
    # Without this, bash would print the whole command line when the process is killed. `watch_over` prints a better message.
    disown $!
}

label() {
    # Keep running until all writers are gone, so that their last lines are printed too.
    trap '' INT TERM HUP
    exec sed --unbuffered "s/^/$(printf '%-8s' "$1") | /"
}

# ---- Checks and messages ------------------------------------------------------------------------------------------------------

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Whether a GET of a path on a port is answered with 200.
answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3 &&
        read -r -t 2 _ status _ <&3 && [[ $status == 200 ]]) 2>/dev/null
}

is_alive() {
    [[ -n ${pid_of[$1]:-} ]] && kill -0 "${pid_of[$1]}" 2>/dev/null
}

# Waits until a check of a process succeeds.
wait_for() {
    local name=$1 until=$((SECONDS + 20))
    shift
    until "$@"; do
        is_alive "$name" || fail "$name ended at its start"
        ((SECONDS < until)) || fail "$name does not answer after 20 s"
        sleep 0.05
    done
}

fail() {
    echo "cluster.sh: $1" >&2
    exit 1
}

greet() {
    local node
    printf '\n  Three nodes, joined by %s, with a chat on them\n\n' "$engine"
    printf '  %-10s http://127.0.0.1:%s/   the node with the fewest sessions (HAProxy; its status: http://127.0.0.1:%s/)\n' \
        chat "$port" "$stats_port"
    for node in "${nodes[@]}"; do
        printf '  %-10s http://127.0.0.1:%s/   this node alone; pid %s, router 127.0.0.1:%s, API :%s, health and metrics :%s\n' \
            "node-$node" "$(direct_port "$node")" "${pid_of[node-$node]}" "$(router_port "$node")" "$(api_port "$node")" \
            "$(admin_port "$node")"
    done
    printf '  %-10s 127.0.0.1:%s          pid %s\n' "$engine" "$engine_port" "${pid_of[$engine]}"
    cat <<END

  Try:
    two windows, one at node-1 and one at node-2: both are in the same chat
    curl http://127.0.0.1:$(api_port 3)/v1/channels/chat        node-3 lists the members on all nodes
    two windows at the chat's address, then kill -9 the node of one of them (hold the pointer over your name to see it):
      its page reconnects to another node under the same name, and gets everything that is said from then on
    kill -9 ${pid_of[$engine]}, or kill -STOP and later -CONT: each node goes on with its own people;
      curl http://127.0.0.1:$(admin_port 1)/ready says why it is not ready
END
    ((again_after == 0)) || printf '\n  A killed process is restarted after %s s.\n' "$again_after"
    printf '\n  Each event is shown below. Ctrl-C stops.\n\n'
}

# ---- Restarts and stopping --------------------------------------------------------------------------------------------------

# Restarts processes that have ended; runs for ever.
watch_over() {
    local name
    local -A again_at=()
    while true; do
        for name in "${!pid_of[@]}"; do
            if is_alive "$name"; then
                continue
            elif [[ -z ${again_at[$name]:-} ]]; then
                echo "$name has ended"
                # Kill its process group too: a killed php-fpm leaves its workers behind, for example.
                kill -KILL -- "-${pid_of[$name]}" 2>/dev/null || true
                again_at[$name]=$((SECONDS + again_after))
            elif ((again_after > 0 && SECONDS >= again_at[$name])); then
                unset "again_at[$name]"
                start "$name"
                echo "$name has been restarted, pid ${pid_of[$name]}"
            fi
        done
        sleep 0.3
    done
}

stop() {
    local name until
    trap '' INT TERM HUP
    trap - EXIT
    # Nodes first, so that their close events run while php-fpm is there. Then the rest.
    for parts in 'node-1 node-2 node-3' "haproxy php-fpm $engine"; do
        for name in $parts; do
            is_alive "$name" && kill -TERM "${pid_of[$name]}" 2>/dev/null
        done
        until=$((SECONDS + 6))
        for name in $parts; do
            while is_alive "$name" && ((SECONDS < until)); do sleep 0.05; done
            # Kill the whole process group, with its workers.
            ! is_alive "$name" || kill -KILL -- "-${pid_of[$name]}" 2>/dev/null || true
        done
    done
    [[ -z $janitor ]] || kill -KILL -- "-$janitor" 2>/dev/null || true
    [[ -z $dir ]] || rm -rf "$dir"
}

main "$@"
