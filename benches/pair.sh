#!/usr/bin/env bash
# TATP on a HotStandby pair and on a synchronous PostgreSQL pair, side by side in one run on this machine.
#
#   benches/pair.sh [--self | --postgres] [--quick]
#
#   --self      only the HotStandby pair          --quick   small and short: shows that it works, measures little
#   --postgres  only the PostgreSQL pair
#
# Environment: SECS per measurement (5), SUBS subscribers (20000), CLIENTS ("1 8 32"), MIXES ("standard write"),
# ROUNDS (2), JOBS threads of pgbench (1), SYNC PostgreSQL's synchronous_commit (remote_write), ACK 2SafeAckPolicy (1),
# DURABILITY Logging.DurabilityLevel (2), SOLID a built solid to use instead of building one, KEEP=1 keeps the files.
#
# The two systems take turns (A B A B), because disks and neighbours change from minute to minute. Nearest equals:
# remote_write ~ ACK=1, remote_apply ~ ACK=2, on ~ ACK=3. PostgreSQL also waits for its own disk in all of these; the
# pair here does so with DURABILITY=3.
set -Eeuo pipefail

here=$(cd "$(dirname "$0")" && pwd)
run_ours=1 run_postgres=1 quick=0
for argument in "$@"; do
    case $argument in
        --self) run_postgres=0 ;;
        --postgres) run_ours=0 ;;
        --quick) quick=1 ;;
        *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
    esac
done
if [ $run_ours = 0 ] && [ $run_postgres = 0 ]; then echo "--self and --postgres exclude each other" >&2; exit 2; fi
if [ $quick = 1 ]; then : "${SECS:=1}" "${SUBS:=1000}" "${CLIENTS:=1 8}" "${ROUNDS:=1}"; fi
: "${SECS:=5}" "${SUBS:=20000}" "${CLIENTS:=1 8 32}" "${MIXES:=standard write}" "${ROUNDS:=2}" "${JOBS:=1}"
: "${SYNC:=remote_write}" "${ACK:=1}" "${DURABILITY:=2}"

work=$(mktemp -d "${TMPDIR:-/tmp}/hotstandby-bench.XXXXXX")
chmod 711 "$work"
started=()          # process ids of our servers
postgres_data=()    # data directories of started PostgreSQL servers
export PGSSLMODE=disable PGCONNECT_TIMEOUT=10 LC_ALL=C
admin=admin password="bench-$$-$RANDOM"

fail() { echo "pair.sh: $*" >&2; exit 1; }

clean_up() {
    status=$?
    trap - EXIT INT TERM
    local pid directory
    for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${started[@]}"; do
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
        kill -9 "$pid" 2>/dev/null || true
        wait "$pid" 2>/dev/null || true
    done
    for directory in "${postgres_data[@]}"; do
        as_postgres "$postgres_bin/pg_ctl" -D "$directory" -m immediate -w stop >/dev/null 2>&1 || true
    done
    if [ "${KEEP:-0}" = 1 ]; then echo "files kept in $work" >&2; else rm -rf "$work"; fi
    exit "$status"
}
trap clean_up EXIT
trap 'echo "pair.sh: line $LINENO failed" >&2' ERR
trap 'exit 130' INT
trap 'exit 143' TERM

need() { command -v "$1" >/dev/null || fail "$1 is not installed ($2)"; }

# Repeats a command until it succeeds: wait_for SECONDS WHAT COMMAND…
wait_for() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $deadline ] || fail "waited too long for: $what"
        sleep 0.1
    done
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Sets `port` to one that nobody listens on and that was not given out before.
given_ports=" "
free_port() {
    for _ in $(seq 200); do
        port=$((20000 + RANDOM % 12000))
        if [[ $given_ports != *" $port "* ]] && ! port_open "$port"; then given_ports+="$port "; return; fi
    done
    fail "no free port found"
}

# --- PostgreSQL -----------------------------------------------------------------------------------------------------

find_postgres() {
    need psql "the PostgreSQL client"
    need pgbench "it comes with PostgreSQL"
    [ $run_postgres = 1 ] || return 0
    postgres_bin=$({ ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin 2>/dev/null || true; } | sort -V | tail -1)
    [ -n "$postgres_bin" ] || postgres_bin=$(dirname "$(command -v initdb || echo none)")
    [ -x "$postgres_bin/initdb" ] || fail "the PostgreSQL server is not installed (no initdb); --self runs without it"
    local version
    version=$("$postgres_bin/initdb" --version | sed 's/.* \([0-9]*\).*/\1/')
    [ "$version" -ge 15 ] || fail "PostgreSQL $version is too old; 15 or newer is needed"
    if [ "$(id -u)" = 0 ] && ! id postgres >/dev/null 2>&1; then
        fail "PostgreSQL does not run as root and there is no user postgres; start this as another user"
    fi
}

# PostgreSQL's programs refuse to run as root.
as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        su postgres -s /bin/bash -c "cd / && $(printf '%q ' "$@")"
    else
        "$@"
    fi
}

postgres_sql() { "$postgres_bin/psql" -XqAt -h 127.0.0.1 -p "$postgres_port" -U postgres -d postgres "$@"; }
is_synchronous() { [ "$(postgres_sql -c "SELECT sync_state FROM pg_stat_replication")" = sync ]; }

start_postgres() {
    local directory=$work/postgres standby_port
    free_port; postgres_port=$port
    free_port; standby_port=$port
    mkdir "$directory"
    [ "$(id -u)" != 0 ] || chown postgres "$directory"
    as_postgres "$postgres_bin/initdb" -D "$directory/primary" -A trust -U postgres >"$work/initdb.out" 2>&1 ||
        fail "initdb: $(tail -3 "$work/initdb.out")"
    cat >>"$directory/primary/postgresql.conf" <<SETTINGS
port = $postgres_port
listen_addresses = '127.0.0.1'
unix_socket_directories = '$directory'
wal_level = replica
shared_buffers = 1GB
max_wal_size = 4GB
synchronous_commit = $SYNC
SETTINGS
    start_postgres_server primary
    as_postgres "$postgres_bin/pg_basebackup" -D "$directory/standby" -R -h 127.0.0.1 -p "$postgres_port" -U postgres -X stream
    sed -i "s/^port = .*/port = $standby_port/" "$directory/standby/postgresql.conf"
    start_postgres_server standby
    postgres_sql -c "ALTER SYSTEM SET synchronous_standby_names = 'walreceiver'" -c "SELECT pg_reload_conf()" >/dev/null
    wait_for 30 "the PostgreSQL standby to become synchronous" is_synchronous
}

start_postgres_server() {
    postgres_data+=("$work/postgres/$1")
    as_postgres "$postgres_bin/pg_ctl" -D "$work/postgres/$1" -l "$work/postgres/$1.out" -w start >/dev/null ||
        fail "PostgreSQL $1: $(tail -3 "$work/postgres/$1.out")"
}

# --- HotStandby -----------------------------------------------------------------------------------------------------

build_ours() {
    if [ -z "${SOLID:-}" ]; then
        need cargo "to build solid; or name a built one in SOLID"
        (cd "$here/.." && cargo build --release --bin solid) || fail "the build failed"
        SOLID=${CARGO_TARGET_DIR:-$here/../target}/release/solid
    fi
    [ -x "$SOLID" ] || fail "$SOLID is not there"
}

# Answer of a console command, without the login's OK: console PORT COMMAND. Fails if the last line is not OK.
console() {
    local answer
    answer=$(PORT=$1 COMMAND=$2 ADMIN=$admin PASSWORD=$password timeout 30 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$PORT" || exit 1
        printf "login %s %s\n%s\nquit\n" "$ADMIN" "$PASSWORD" "$COMMAND" >&3
        cat <&3') || return 1
    answer=${answer#OK$'\n'}
    printf '%s\n' "$answer"
    [ "${answer##*$'\n'}" = OK ]
}

# Sends a command that must succeed.
command_to() {
    local answer
    answer=$(console "$1" "$2") || fail "'$2' was refused: $answer"
}

says() { [[ $(console "$1" "$2" 2>/dev/null) == *$'\t'"$3"* ]]; }

start_server() {
    local name=$1 own_port=$2 peer_port=$3
    shift 3
    mkdir "$work/$name"
    cat >"$work/$name/solid.ini" <<SETTINGS
[Com]
Listen = tcp $own_port
[Logging]
DurabilityLevel = $DURABILITY
[HotStandby]
HSBEnabled = yes
Connect = tcp $peer_port
2SafeAckPolicy = $ACK
SETTINGS
    SOLID_USER=$admin SOLID_PASSWORD=$password "$SOLID" -c "$work/$name" "$@" </dev/null >"$work/$name/out" 2>&1 &
    local pid=$!
    started+=("$pid")
    wait_for 20 "$name to listen" listens_or_ended "$pid" "$own_port"
    kill -0 "$pid" 2>/dev/null || fail "$name ended: $(tail -5 "$work/$name/out")"
}

listens_or_ended() { port_open "$2" || ! kill -0 "$1" 2>/dev/null; }

copy_ended() {
    local answer
    answer=$(console "$ours_port" "hsb status copy" 2>/dev/null) || true
    [[ $answer != *FAILED* ]] || fail "netcopy: $answer"
    [[ $answer == *SUCCESS* ]]
}

start_ours() {
    local peer_port
    free_port; ours_port=$port
    free_port; peer_port=$port
    start_server one "$ours_port" "$peer_port"
    start_server two "$peer_port" "$ours_port" -x backupserver
    command_to "$ours_port" "hsb set primary alone"
    wait_for 20 "PRIMARY ALONE" says "$ours_port" "hsb state" "PRIMARY ALONE"
    command_to "$ours_port" "hsb netcopy"
    wait_for 60 "the netcopy" copy_ended
    # The second server needs a moment to open the database that it received.
    says "$ours_port" "hsb state" "PRIMARY ACTIVE" || wait_for 20 "'hsb connect' to be accepted" console "$ours_port" "hsb connect" >/dev/null
    wait_for 60 "PRIMARY ACTIVE" says "$ours_port" "hsb state" "PRIMARY ACTIVE"
}

# --- Load and measurement -------------------------------------------------------------------------------------------

# Sets the connection of `system`.
connection_of() {
    if [ "$1" = postgres ]; then
        export PGHOST=127.0.0.1 PGPORT=$postgres_port PGUSER=postgres PGDATABASE=postgres PGPASSWORD=
    else
        export PGHOST=127.0.0.1 PGPORT=$ours_port PGUSER=$admin PGDATABASE=solid PGPASSWORD=$password
    fi
}

load() {
    connection_of "$1"
    local begin=$SECONDS
    psql -Xq -v ON_ERROR_STOP=1 -f "$here/tatp/schema.sql" -f "$work/data.sql" >"$work/load.out" 2>&1 ||
        fail "loading $1: $(tail -3 "$work/load.out")"
    # PostgreSQL would do this by itself in the middle of a measurement.
    [ "$1" != postgres ] || psql -Xq -c "VACUUM ANALYZE"
    echo "$1: $SUBS subscribers loaded in $((SECONDS - begin)) s"
}

# One measurement: measure SYSTEM MIX CLIENTS SECONDS; sets `rate` and `latency`.
measure() {
    local weights names files=() i output="$work/pgbench.out"
    connection_of "$1"
    case $2 in
        standard) weights=(35 10 35 2 14 2 2) ;;    # TATP's own: 80 % reads
        half) weights=(22 6 22 4 38 4 4) ;;
        write) weights=(0 0 0 8 76 8 8) ;;
        *) fail "unknown mix $2" ;;
    esac
    names=(get_subscriber_data get_new_destination get_access_data
        update_subscriber_data update_location insert_call_forwarding delete_call_forwarding)
    for i in "${!names[@]}"; do
        [ "${weights[$i]}" = 0 ] || files+=(-f "$here/tatp/${names[$i]}.sql@${weights[$i]}")
    done
    pgbench -n -T "$4" -c "$3" -j "$((JOBS < $3 ? JOBS : $3))" -M prepared -D subs="$SUBS" "${files[@]}" >"$output" 2>&1 ||
        fail "pgbench on $1 ($2, $3 clients): $(grep -v '^pgbench (' "$output" | tail -5)"
    rate=$(sed -n 's/^tps = \([0-9.]*\).*/\1/p' "$output" | head -1)
    latency=$(sed -n 's/^latency average = \([0-9.]*\) ms.*/\1/p' "$output" | head -1)
    if [ -z "$rate" ] || [ -z "$latency" ]; then fail "pgbench on $1 gave no result: $(tail -5 "$output")"; fi
}

# A pair that fell apart on the way measured something else.
check_pairs() {
    if [ $run_postgres = 1 ]; then is_synchronous || fail "the PostgreSQL pair is not synchronous at the end"; fi
    if [ $run_ours = 1 ]; then
        says "$ours_port" "hsb state" "PRIMARY ACTIVE" ||
            fail "the HotStandby pair is not active at the end: $(console "$ours_port" "hsb state")"
    fi
}

print_table() {
    awk -v rounds="$ROUNDS" '
        { rates[$2 " " $3, $1] += $4 / rounds; latencies[$2 " " $3, $1] += $5 / rounds; if (!seen[$2 " " $3]++) order[++count] = $2 " " $3 }
        function cell(key, name) {
            return ((key, name) in rates) ? sprintf("%12.0f %10.3f", rates[key, name], latencies[key, name]) : sprintf("%12s %10s", "-", "-")
        }
        END {
            printf "\n%-10s %7s | %23s | %23s | %s\n", "", "", "PostgreSQL", "HotStandby", "ratio"
            printf "%-10s %7s | %12s %10s | %12s %10s | %s\n", "mix", "clients", "tx/s", "ms", "tx/s", "ms", "ours/PostgreSQL"
            for (i = 1; i <= count; i++) {
                key = order[i]; split(key, part, " ")
                both = ((key, "postgres") in rates) && ((key, "ours") in rates) && rates[key, "postgres"] > 0
                printf "%-10s %7s | %s | %s | %s\n", part[1], part[2], cell(key, "postgres"), cell(key, "ours"), both ? sprintf("%.2f", rates[key, "ours"] / rates[key, "postgres"]) : "-"
            }
        }' "$1"
}

main() {
    local systems=() system mix clients round
    find_postgres
    need awk "a standard tool"
    awk -v subscribers="$SUBS" -f "$here/tatp/populate.awk" >"$work/data.sql"
    if [ $run_ours = 1 ]; then build_ours; fi
    if [ $run_postgres = 1 ]; then start_postgres; systems+=(postgres); fi
    if [ $run_ours = 1 ]; then start_ours; systems+=(ours); fi
    for system in "${systems[@]}"; do load "$system"; done
    for system in "${systems[@]}"; do measure "$system" standard 8 1; done    # warms both, not counted
    : >"$work/results"
    for mix in $MIXES; do
        for clients in $CLIENTS; do
            for round in $(seq "$ROUNDS"); do
                for system in "${systems[@]}"; do
                    measure "$system" "$mix" "$clients" "$SECS"
                    echo "$system $mix $clients $rate $latency" >>"$work/results"
                    printf '%-9s %-9s %3d clients, round %d: %8.0f tx/s %8.3f ms\n' "$system" "$mix" "$clients" "$round" "$rate" "$latency"
                done
            done
        done
    done
    check_pairs
    print_table "$work/results"
    echo
    echo "$(nproc) processors for everything; $SECS s each, $ROUNDS rounds, $SUBS subscribers, pgbench -M prepared -j $JOBS;"
    [ $run_postgres = 0 ] || echo "$("$postgres_bin/postgres" --version), synchronous_commit=$SYNC;"
    [ $run_ours = 0 ] || echo "2SafeAckPolicy=$ACK, DurabilityLevel=$DURABILITY, SafenessLevel=2safe."
}

main
