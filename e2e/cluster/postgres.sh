# shellcheck shell=bash
# Sourced: Debian's PostgreSQL 15, or the one whose programs are in PG_BIN, as a process of this user, or of `postgres` where
# this user is root, as whom it refuses to run.
pg() { # PROGRAM ARGS...
  local as=()
  [ "$(id -u)" != 0 ] || as=(runuser -u postgres --)
  (cd / && PATH=${PG_BIN:-/usr/lib/postgresql/15/bin}:$PATH "${as[@]}" "$@")
}
pg_own() { [ "$(id -u)" != 0 ] || chown postgres: "$@"; }
pg_start() { # DATA PORT OPTIONS: on loopback, and on a socket in DATA
  pg pg_ctl -D "$1" -l "$1/log" -w start -o "-p $2 -k $1 -c listen_addresses=127.0.0.1 $3"
}
pg_stop() { # DATA MODE
  [ ! -f "$1/postmaster.pid" ] || pg pg_ctl -D "$1" -m "$2" -w stop >/dev/null
}
