#!/bin/sh
# Makes the data directory on the first start; on every start the admin role takes the password of the Secret, so that
# a volume that outlived its release can be used again.
# Reads PGDATA and the file ADMIN_PASSWORD_FILE.
set -eu

# Runs statements, one a line on stdin, in a server without clients: nothing listens while this script works.
# Statements are kept out of the log, for one holds a password.
single() { # DATA_DIRECTORY DATABASE
  postgres --single -D "$1" -c exit_on_error=on -c log_min_error_statement=panic "$2" >/dev/null
}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # Made aside and renamed when whole: a pod killed on the way starts again from nothing.
  rm -rf "$PGDATA.new"
  initdb --pgdata="$PGDATA.new" --username=postgres --auth-local=peer --auth-host=scram-sha-256 \
    --encoding=UTF8 --locale=C --data-checksums
  single "$PGDATA.new" postgres <<'SQL'
CREATE ROLE finaiflow_admin LOGIN NOSUPERUSER CREATEROLE NOCREATEDB NOREPLICATION NOBYPASSRLS
CREATE DATABASE finaiflow OWNER finaiflow_admin
REVOKE ALL ON DATABASE finaiflow FROM PUBLIC
REVOKE ALL ON DATABASE postgres FROM PUBLIC
REVOKE ALL ON DATABASE template1 FROM PUBLIC
SQL
  single "$PGDATA.new" finaiflow <<'SQL'
REVOKE ALL ON SCHEMA public FROM PUBLIC
SQL
  mv "$PGDATA.new" "$PGDATA"
fi

quoted=$(sed "s/'/''/g" "$ADMIN_PASSWORD_FILE")
single "$PGDATA" postgres <<SQL
ALTER ROLE finaiflow_admin PASSWORD '$quoted'
SQL
