#!/usr/bin/env bash
# Runs a command beside servers that it may use, and stops them when it ends:
#
#     tests/services.sh cargo test -p greenloop-unmodified
#
# PostgreSQL, Redis, MariaDB and nginx come from Debian's packages, which are installed when they
# are missing and this runs as root. None of the packages' own services is started or touched: the
# servers here have free ports of the loopback, and their data in a folder that goes with them. The
# command finds them by the variables
#
#     GREENLOOP_POSTGRES_URL  GREENLOOP_REDIS_URL  GREENLOOP_MARIADB_URL  GREENLOOP_HTTP_URL
#
# of which one is not set if its server is not to be had. A server that does not answer, or that
# dies while the command runs, is an error. All speak TCP, without encryption and without passwords.
set -euo pipefail
[ $# -gt 0 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 2; }

# Enough for a test of several hundred clients at once.
clients_max=500
# And of the example that compares a thousand clients. PostgreSQL has a process for each.
queries_max=1100
patience_seconds=60

say() { printf 'services: %s\n' "$*" >&2; }

# --- Packages -------------------------------------------------------------------------------------

# Debian keeps some servers out of the path.
PATH=$PATH:/usr/sbin:/sbin
for bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$bin; done

missing=()
need() { command -v "$1" >/dev/null || missing+=("$2"); }
need postgres postgresql
need redis-server redis-server
need mariadbd mariadb-server-core
need nginx nginx-light
# What the tests in C are linked with.
need pkg-config pkg-config
header() { pkg-config --exists "$1" 2>/dev/null || missing+=("$2"); }
header libpq libpq-dev
header libcurl libcurl4-openssl-dev

# Asked by Debian's packages whether they may start what they install: no.
policy=/usr/sbin/policy-rc.d
install() {
    say "installing ${missing[*]}"
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        policy_is_ours=yes
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq &&
        apt-get install -qq --no-install-recommends "${missing[@]}" >"$home/apt.log" 2>&1 ||
        { say "apt-get cannot: $(tail -n 1 "$home/apt.log")"; }
    [ -z "${policy_is_ours:-}" ] || rm -f "$policy"
    policy_is_ours=
    for bin in /usr/lib/postgresql/*/bin; do PATH=$PATH:$bin; done
}

# --- Processes ------------------------------------------------------------------------------------

# Each server is a process group of its own: a ^C in the terminal is for this script, which then
# stops them in order. If the script is killed without a word, the kernel sends them SIGTERM.
declare -A servers=()
command_pid=

# A server refuses root, or should.
as=(setpriv --pdeathsig TERM)
[ "$(id -u)" != 0 ] || as+=(--reuid nobody --regid nogroup --clear-groups)

start() { # NAME COMMAND...: starts a server, which writes to NAME.log
    local name=$1
    shift
    set -m
    (cd "$home/$name" && exec "${as[@]}" "$@") >"$home/$name.log" 2>&1 </dev/null &
    set +m
    servers[$name]=$!
}

folder() { # NAME: a folder for a server's data
    mkdir "$home/$1"
    [ "$(id -u)" != 0 ] || chown nobody:nogroup "$home/$1"
}

alive() { kill -0 "$1" 2>/dev/null; }

# SIGINT has PostgreSQL send its clients away, where SIGTERM would wait for them.
stop_signal() { if [ "$1" = postgres ]; then echo INT; else echo TERM; fi; }

stop() {
    trap '' INT TERM HUP
    trap - EXIT
    set +e
    if [ -n "$command_pid" ]; then
        kill -TERM -- "-$command_pid" 2>/dev/null
    fi
    local name tries
    for name in "${!servers[@]}"; do kill -"$(stop_signal "$name")" "${servers[$name]}" 2>/dev/null; done
    for name in "${!servers[@]}"; do
        for ((tries = 0; tries < 100; tries++)); do
            alive "${servers[$name]}" || break
            sleep 0.1
        done
        kill -KILL -- "-${servers[$name]}" 2>/dev/null
    done
    wait 2>/dev/null
    [ -z "${policy_is_ours:-}" ] || rm -f "$policy"
    rm -rf "$home"
    exit "$1"
}

# --- Ports ----------------------------------------------------------------------------------------

# Free ones below those that the kernel gives to clients: none of them can take it before the server.
port=$((20000 + RANDOM % 10000))
next_port() {
    while port=$((port + 1)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
}

# NAME PROBE...: waits until the probe succeeds; the server must be alive still, since what answers
# could be a stranger on the same port.
wait_for() {
    local name=$1 deadline=$((SECONDS + patience_seconds))
    shift
    until "$@" >/dev/null 2>&1; do
        if ! alive "${servers[$name]}" || ((SECONDS >= deadline)); then
            say "$name does not answer; it said:"
            tail -n 20 "$home/$name.log" >&2
            exit 1
        fi
        sleep 0.05
    done
    alive "${servers[$name]}" || { say "$name died: $(tail -n 1 "$home/$name.log")"; exit 1; }
}

# --- Servers --------------------------------------------------------------------------------------

has() { command -v "$1" >/dev/null || { say "there is no $1: its tests will be left out"; false; }; }

start_postgres() {
    folder postgres
    (cd "$home/postgres" && "${as[@]}" initdb -D data -U greenloop -A trust -E UTF8 --no-locale \
        --no-sync >"$home/initdb.log" 2>&1) || { tail "$home/initdb.log" >&2; exit 1; }
    next_port
    start postgres postgres -D data -h 127.0.0.1 -p "$port" -k "$home/postgres" \
        -c max_connections="$queries_max" -c shared_buffers=16MB -c fsync=off -c autovacuum=off
    postgres_port=$port
}
ask_postgres() { psql -h 127.0.0.1 -p "$postgres_port" -U greenloop -d postgres -c 'select 1'; }

start_redis() {
    folder redis
    next_port
    start redis redis-server --bind 127.0.0.1 --port "$port" --save '' --maxclients "$clients_max" \
        --dir "$home/redis"
    redis_port=$port
}
# Sends text to a port, and reads one line.
converse() { # PORT TEXT EXPECTED
    local line
    exec 3<>"/dev/tcp/127.0.0.1/$1" || return 1
    printf '%b' "$2" >&3
    IFS= read -r -t 2 -n "${#3}" line <&3 || true
    exec 3<&- 3>&-
    [ "$line" = "$3" ]
}
ask_redis() { (converse "$redis_port" 'PING\r\n' '+PONG'); }

# Without the tables of users and rights, which need more packages to make: whoever asks may.
start_mariadb() {
    folder mariadb
    folder mariadb/data
    next_port
    start mariadb mariadbd --no-defaults --datadir="$home/mariadb/data" --skip-grant-tables \
        --bind-address=127.0.0.1 --port="$port" --skip-name-resolve \
        --socket="$home/mariadb/socket" --pid-file="$home/mariadb/pid" \
        --max-connections="$clients_max" --back-log="$clients_max" \
        --innodb-buffer-pool-size=16M --innodb-flush-log-at-trx-commit=0
    mariadb_port=$port
}
# Its greeting: the length of a packet, a number, the protocol's version; then its own in plain text.
ask_mariadb() {
    exec 3<>"/dev/tcp/127.0.0.1/$mariadb_port" || return 1
    local greeting
    greeting=$(timeout 2 head -c 40 <&3 | tr -d '\0')
    exec 3<&- 3>&-
    [[ $greeting == *MariaDB* ]]
}
start_nginx() {
    folder nginx
    mkdir "$home/nginx/www"
    # Lines that say which they are, and a slow way to them.
    for ((i = 0; i < 200; i++)); do printf 'line %06d of 200, in 64 characters, the last a line feed.....\n' "$i"; done \
        >"$home/nginx/www/lines"
    next_port
    cat >"$home/nginx/conf" <<CONF
daemon off;
pid $home/nginx/pid;
error_log stderr;
worker_processes 1;
events { worker_connections $((2 * clients_max)); }
http {
    access_log off;
    client_body_temp_path $home/nginx/body;
    proxy_temp_path $home/nginx/proxy;
    fastcgi_temp_path $home/nginx/fastcgi;
    uwsgi_temp_path $home/nginx/uwsgi;
    scgi_temp_path $home/nginx/scgi;
    server {
        listen 127.0.0.1:$port backlog=4096;
        root $home/nginx/www;
        # Bytes a second: the greater part comes at once, the rest a second later.
        location = /slow { limit_rate 8k; try_files /lines =404; }
    }
}
CONF
    start nginx nginx -p "$home/nginx" -c "$home/nginx/conf" -e stderr
    nginx_port=$port
}
ask_nginx() { (converse "$nginx_port" 'HEAD /lines HTTP/1.0\r\n\r\n' 'HTTP/1.1 200'); }

# --- All of it ------------------------------------------------------------------------------------

home=$(mktemp -d "${TMPDIR:-/tmp}/greenloop-services.XXXXXX")
chmod 755 "$home"
trap 'stop $?' EXIT
trap 'stop 130' INT
trap 'stop 143' TERM
trap 'stop 129' HUP

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        install
    else
        say "not installed, and not root to do it: ${missing[*]}"
    fi
fi

# All at once, then wait for each.
if has postgres; then start_postgres; fi
if has redis-server; then start_redis; fi
if has mariadbd; then start_mariadb; fi
if has nginx; then start_nginx; fi
for name in "${!servers[@]}"; do wait_for "$name" "ask_$name"; done

[ -z "${postgres_port:-}" ] || export GREENLOOP_POSTGRES_URL="postgresql://greenloop@127.0.0.1:$postgres_port/postgres"
[ -z "${redis_port:-}" ] || export GREENLOOP_REDIS_URL="redis://127.0.0.1:$redis_port/"
[ -z "${mariadb_port:-}" ] || export GREENLOOP_MARIADB_URL="mysql://root@127.0.0.1:$mariadb_port/"
[ -z "${nginx_port:-}" ] || export GREENLOOP_HTTP_URL="http://127.0.0.1:$nginx_port/"
say "$(printf '%s ' "${!servers[@]}")answer after $SECONDS s"

set -m
"$@" </dev/null &
command_pid=$!
set +m
status=0
wait "$command_pid" || status=$?
command_pid=
for name in "${!servers[@]}"; do
    alive "${servers[$name]}" && continue
    say "$name died; it said:"
    tail -n 20 "$home/$name.log" >&2
    status=1
done
exit "$status"
