#!/usr/bin/env bash
# schemathesis.sh ARGS...: schemathesis as requirements.txt pins it. The first call installs it into the cache; later
# ones need no network.
. "$(dirname "$0")/../cluster/lib.sh"
here=$ROOT/e2e/contract
venv=$CACHE/python-$(digest "$here" requirements.txt)

if [ ! -e "$venv/complete" ]; then
  mkdir -p "$CACHE"
  exec 9>"$venv.lock"
  flock 9
  if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv" # Debian's: the package python3-venv goes with it
    retry "$venv/bin/pip" install --quiet --no-input --disable-pip-version-check --only-binary :all: -r "$here/requirements.txt" >&2
    touch "$venv/complete"
  fi
  exec 9>&-
fi
exec "$venv/bin/schemathesis" "$@"
