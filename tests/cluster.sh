#!/usr/bin/env bash
# Three Longwire nodes on this machine, joined by Redis or NATS, with HAProxy in front of them and the chat of php-examples behind
# them (one php-fpm): to see what becomes of it when something is killed.
#
#   tests/cluster.sh LONGWIRE    with the binary of that path; `make cluster` builds one
#
#   ENGINE=nats      what joins the nodes: redis, unless this says otherwise
#   PORT=8080        where the balancer listens; everything else has ports up to 51 behind it (8080 to 8131), see below
#   AGAIN_AFTER=10   seconds until what was killed is started again, as systemd would; 0 leaves it away
#
# Everything listens on 127.0.0.1 and keeps its files in a folder of its own for temporary files. Ctrl-C stops it and leaves nothing
# behind. Killed with SIGKILL it leaves nothing either: the kernel ends what it has started, and a process that waits for that
# removes the folder.
set -euo pipefail

# Where Debian has php-fpm, haproxy and nats-server, which is not on everybody's PATH.
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
    longwire=$(realpath -e "${1:?the path of a longwire binary, see the head of this file}")
    [[ $engine == redis || $engine == nats ]] || fail "ENGINE is redis or nats, not $engine"
    [[ $port =~ ^[0-9]+$ ]] && ((port > 0 && port + 51 < 65536)) || fail "PORT is a port from 1 to 65484, not $port"
    find_programs
    look_for_taken_ports

    trap 'stop; exit 0' INT TERM HUP
    trap stop EXIT
    dir=$(mktemp -d "${TMPDIR:-/tmp}/longwire-cluster.XXXXXX")
    # In a session of its own, so that neither Ctrl-C nor the end of the terminal ends it before its work is done.
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

# ---- What runs -----------------------------------------------------------------------------------------------------------

find_programs() {
    local name
    php_fpm=$(command -v php-fpm || ls -v /usr/sbin/php-fpm[78]* 2>/dev/null | tail -n 1) || true
    [[ -n $php_fpm ]] || fail "there is no php-fpm: tests/install-deps.sh cluster"
    for name in haproxy "$engine-server" setsid setpriv; do
        command -v "$name" >/dev/null || fail "there is no $name: tests/install-deps.sh cluster"
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
    ! listens "$1" || fail "somebody listens on 127.0.0.1:$1 already, where $2 should be; PORT=18080 takes 18080 to 18131 instead"
}

write_configurations() {
    local node user='' check
    # Root has to say that it means it.
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

# For the balancer, which says whom it speaks for.
[listeners.balanced]
bind = "127.0.0.1:$(balanced_port "$node")"
protocol = "http"
routes = { "/ws" = "chat" }
static = '$root/php-examples/chat'
proxy_protocol = ["127.0.0.1"]

# For whoever wants this node and no other.
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
    # A node that was killed refuses: the next one is tried.
    retries 3
    option redispatch 1

frontend chat
    bind 127.0.0.1:$port
    # Without their engine no node is ready, and each of them serves its own sessions all the same.
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
    # Sessions last: a new one goes where there are fewest.
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

# Sets `command`, and `signal`: what it gets from the kernel when this script was killed.
describe() {
    signal=KILL
    case $1 in
        php-fpm)
            command=("$php_fpm" --nodaemonize --fpm-config "$dir/php-fpm.conf" -d "sys_temp_dir=$dir/tmp")
            ((EUID != 0)) || command+=(--allow-to-run-as-root)
            # Its master ends the workers then.
            signal=TERM
            ;;
        redis) command=(redis-server --bind 127.0.0.1 --port "$engine_port" --save '' --dir "$dir" --loglevel warning) ;;
        nats) command=(nats-server --addr 127.0.0.1 --port "$engine_port") ;;
        haproxy) command=(haproxy -db -f "$dir/haproxy.cfg") ;;
        node-*) command=("$longwire" serve --config "$dir/$1.toml") ;;
        *) fail "there is no $1" ;;
    esac
}

start() {
    local command signal
    describe "$1"
    # Each in a session of its own: Ctrl-C is for this script alone, which stops them one after the other.
    setsid setpriv --pdeathsig "$signal" "${command[@]}" </dev/null > >(label "$1") 2>&1 &
    pid_of[$1]=$!
    # Else bash prints the whole line when it is killed; `watch_over` says it better.
    disown $!
}

label() {
    # Until nobody writes any more, the last words included.
    trap '' INT TERM HUP
    exec sed --unbuffered "s/^/$(printf '%-8s' "$1") | /"
}

# ---- How it is seen ------------------------------------------------------------------------------------------------------

listens() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# Whether a GET of a path at a port has status 200.
answers() {
    (exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET %s HTTP/1.0\r\n\r\n' "$2" >&3 &&
        read -r -t 2 _ status _ <&3 && [[ $status == 200 ]]) 2>/dev/null
}

is_alive() {
    [[ -n ${pid_of[$1]:-} ]] && kill -0 "${pid_of[$1]}" 2>/dev/null
}

# Until a command about a part succeeds.
wait_for() {
    local name=$1 until=$((SECONDS + 20))
    shift
    until "$@"; do
        is_alive "$name" || fail "$name has ended at once"
        ((SECONDS < until)) || fail "$name does not answer"
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
    printf '  %-10s http://127.0.0.1:%s/   whichever node has the fewest sessions (HAProxy; its view: http://127.0.0.1:%s/)\n' \
        chat "$port" "$stats_port"
    for node in "${nodes[@]}"; do
        printf '  %-10s http://127.0.0.1:%s/   this node alone; pid %s, router 127.0.0.1:%s, API :%s, health and metrics :%s\n' \
            "node-$node" "$(direct_port "$node")" "${pid_of[node-$node]}" "$(router_port "$node")" "$(api_port "$node")" \
            "$(admin_port "$node")"
    done
    printf '  %-10s 127.0.0.1:%s          pid %s\n' "$engine" "$engine_port" "${pid_of[$engine]}"
    cat <<END

  Try:
    two windows, one at node-1 and one at node-2: they are in one chat
    curl http://127.0.0.1:$(api_port 3)/v1/channels/chat        node-3 says who is there, on all nodes
    two windows at the chat's own address, then kill -9 the node of one of them (the pointer over your name shows it):
      its page comes back on another node, under the same name, and misses nothing that is said from then on
    kill -9 ${pid_of[$engine]}, or kill -STOP and later -CONT: each node goes on with its own people;
      curl http://127.0.0.1:$(admin_port 1)/ready says why it is not ready
END
    ((again_after == 0)) || printf '\n  What is killed is started again after %s s.\n' "$again_after"
    printf '\n  Each event is shown below. Ctrl-C stops.\n\n'
}

# ---- What becomes of it --------------------------------------------------------------------------------------------------

# Starts again what has ended; for ever.
watch_over() {
    local name
    local -A again_at=()
    while true; do
        for name in "${!pid_of[@]}"; do
            if is_alive "$name"; then
                continue
            elif [[ -z ${again_at[$name]:-} ]]; then
                echo "$name has ended"
                # What it has left behind, as a killed php-fpm does its workers: it led a group of its own.
                kill -KILL -- "-${pid_of[$name]}" 2>/dev/null || true
                again_at[$name]=$((SECONDS + again_after))
            elif ((again_after > 0 && SECONDS >= again_at[$name])); then
                unset "again_at[$name]"
                start "$name"
                echo "$name is started again, pid ${pid_of[$name]}"
            fi
        done
        sleep 0.3
    done
}

stop() {
    local name until
    trap '' INT TERM HUP
    trap - EXIT
    # Nodes first: their sessions get their close events while php-fpm is there. Then whatever they used.
    for parts in 'node-1 node-2 node-3' "haproxy php-fpm $engine"; do
        for name in $parts; do
            is_alive "$name" && kill -TERM "${pid_of[$name]}" 2>/dev/null
        done
        until=$((SECONDS + 6))
        for name in $parts; do
            while is_alive "$name" && ((SECONDS < until)); do sleep 0.05; done
            # With its workers: it leads a group of its own.
            ! is_alive "$name" || kill -KILL -- "-${pid_of[$name]}" 2>/dev/null || true
        done
    done
    [[ -z $janitor ]] || kill -KILL -- "-$janitor" 2>/dev/null || true
    [[ -z $dir ]] || rm -rf "$dir"
}

main "$@"
