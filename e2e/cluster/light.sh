#!/usr/bin/env bash
# light.sh CMD...: runs CMD beside a throw-away PostgreSQL 15 and a Kubernetes API server without nodes, both on
# loopback, and takes both away when CMD ends or this script is told to stop. CMD finds them through
#
#   FINAIFLOW_TEST_DATABASE_URL   a superuser's URL; every role but that one must log in with its password
#   FINAIFLOW_TEST_KUBECONFIG     an administrator's kubeconfig
#   FINAIFLOW_TEST_S3_SERVER      the program of an S3 server, versitygw
#   FINAIFLOW_TEST_PROBE          what probe.c counts, where LIGHT_DURABLE=1 asks for a PostgreSQL as durable as by default
. "$(dirname "$0")/lib.sh"
[ $# -gt 0 ] || { sed -n '2,8p' "$0" >&2; exit 2; }

LC_BIN=$("$HERE/binary.sh")
FINAIFLOW_TEST_S3_SERVER=$("$HERE/s3_server.sh")
export FINAIFLOW_TEST_S3_SERVER
T=$(mktemp -d "${TMPDIR:-/${LIGHT_DURABLE:+var/}tmp}/finaiflow-light.XXXXXX") # /tmp may be memory
chmod 711 "$T"
PORTS=$(free_ports 7)
PGPORT=$((PORTS + 6))
export LC_BIN LC_LIGHT=1 LC_STATE=$T/lc LC_PORT=$PORTS
. "$HERE/postgres.sh"

# shellcheck disable=SC2317 # called by the trap
finish() {
  trap - EXIT
  [ -z "${command:-}" ] || kill -- "-$command" 2>/dev/null || true
  wait || true
  pg_stop "$T/pg" immediate || true
  "$HERE/lc.sh" purge >/dev/null || true
  rm -rf "$T"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

database() {
  mkdir "$T/pg"
  pg_own "$T/pg"
  pg initdb -D "$T/pg" --username=postgres --encoding=UTF8 --locale=C --auth=trust --no-sync
  printf '%s\n' 'local all all trust' 'host all postgres 127.0.0.1/32 trust' 'host all all 127.0.0.1/32 scram-sha-256' >"$T/pg/pg_hba.conf"
  [ -z "${LIGHT_DURABLE:-}" ] || { durable; return; }
  # Nothing here outlives a crash, so nothing waits for the disk.
  pg_start "$T/pg" "$PGPORT" "-c max_connections=300 -c fsync=off -c full_page_writes=off"
}
durable() { # for benchmarks: room for the load, and no checkpoint that falls into some rounds and not into others
  cc -shared -fPIC -O2 -o "$T/probe.so" "$HERE/probe.c" -ldl
  head -c 24 /dev/zero >"$T/probe"
  pg_own "$T/probe"
  LD_PRELOAD=$T/probe.so FINAIFLOW_PROBE=$T/probe pg_start "$T/pg" "$PGPORT" \
    "-c max_connections=1200 -c shared_buffers=1GB -c min_wal_size=4GB -c max_wal_size=8GB -c checkpoint_timeout=1h"
  # As on a server that has run for a while, the log finds its next files made already.
  pg psql -qh 127.0.0.1 -p "$PGPORT" -c "SELECT FROM generate_series(1, 250), pg_logical_emit_message(false, '', repeat(' ', 16000000))" \
    -c CHECKPOINT -c "ALTER SYSTEM SET wal_keep_size = '2GB'" -c 'SELECT pg_reload_conf()'
}
step "starting PostgreSQL 15 and a Kubernetes API server for the tests"
database >"$T/database.log" 2>&1 &
starting=$!
"$HERE/lc.sh" up >"$T/lc.log" 2>&1 || { cat "$T/lc.log" >&2; die "the API server did not start"; }
wait "$starting" || { cat "$T/database.log" >&2; die "PostgreSQL did not start"; }

export FINAIFLOW_TEST_DATABASE_URL=postgres://postgres@127.0.0.1:$PGPORT/postgres
export FINAIFLOW_TEST_KUBECONFIG=$LC_STATE/admin.kubeconfig FINAIFLOW_TEST_PROBE=$T/probe
step "running: $*"
rc=0
# In the background, so that a signal is seen at once and not when CMD ends; with a process group of its own, so that
# what CMD started ends with it.
set -m
"$@" &
command=$!
set +m
wait "$command" || rc=$?
command=
exit "$rc"
