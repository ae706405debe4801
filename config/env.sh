#!/bin/sh
# env.sh API OPERATOR BACKUP: prints .env.example, from what the programs say about themselves with -h.
set -eu

settings() { # PROGRAM [COMMAND]...
  program=$1
  shift
  [ $# -gt 0 ] || set -- ''
  for command; do env -i "$program" ${command:+"$command"} -h; done | awk '
    /^Usage:/ {usage = $0}
    /^ +--/ {flag = $1}
    match($0, /\[env: [A-Z_]+=\]/) {
      name = substr($0, RSTART + 6, RLENGTH - 8)
      if (seen[name]++) next
      value = ""
      if (match($0, /\[default: [^]]*\]/)) value = substr($0, RSTART + 10, RLENGTH - 11)
      if (value == "\"\"") value = ""
      sub(/ \[env:.*/, ""); sub(/^ +(--[^ ]+ <[^ ]+>)? */, "")
      # Where nothing is said, the default holds; what has none and must be said is no comment.
      printf "# %s.\n%s%s=%s\n", $0, index(usage, flag " ") ? "" : "#", name, value
    }'
}
cat <<'END'
# The settings of the programs, from their command lines (make generate); the chart sets them in the pods, and the operator
# in those of its jobs. A line that is commented out shows the default.

# --- finaiflow-api ---
END
settings "$1" serve
cat <<'END'

# A Redis in which the replicas count requests together, redis:// or rediss://. It may hold a password: never in a file
# that is shared.
#REDIS_URL=

# --- finaiflow-api verify-ledger ---
# The login that verifies, as in the Secret <tenant>.maintenance-database. It holds a password: never in a file that is
# shared.
DATABASE_URL=

# --- finaiflow-operator ---
END
settings "$2"
cat <<'END'

# --- finaiflow-backup ---
END
settings "$3" take restore
cat <<'END'
# The login of the backup jobs, as in the Secret <tenant>.backup-database; to restore, that of the bank to fill. It holds a
# password: never in a file that is shared.
DATABASE_URL=
# To verify, and for drills: a superuser of a PostgreSQL that is thrown away afterwards.
#SCRATCH_DATABASE_URL=
END
