# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is for them
# Sourced by the scripts beside it: where things are, progress lines, small helpers.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
HERE=$ROOT/e2e/cluster
# Everything one cluster writes. Not under /run: the node mounts its own there.
STATE=${FINAIFLOW_STATE:-$ROOT/.state}
# Shared by every checkout and cluster of this user: the cluster binary and the base images.
CACHE=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/finaiflow
export FINAIFLOW_STARTED=${FINAIFLOW_STARTED:-$(date +%s)}

elapsed() { echo $(($(date +%s) - FINAIFLOW_STARTED)); }
step() { printf '==> [%4ds] %s\n' "$(elapsed)" "$*"; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# retry CMD...: three tries; for what a registry's hiccup can fail.
retry() {
  local n
  for n in 1 2 3; do
    "$@" && return 0
    [ "$n" = 3 ] || { step "failed (try $n of 3): $*" >&2; sleep $((n * 5)); }
  done
  return 1
}

# watched WHAT LOG CMD...: runs CMD with its output in LOG, says every 20 s that it still runs, shows the log's end if it fails.
watched() {
  local what=$1 log=$2 began=$SECONDS next=20 pid rc=0
  shift 2
  step "$what"
  "$@" >"$log" 2>&1 &
  pid=$!
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.1
    [ $((SECONDS - began)) -lt "$next" ] || { step "$what: still running, $next s" && next=$((next + 20)); }
  done
  wait "$pid" || rc=$?
  [ "$rc" = 0 ] || { tail -n 30 "$log" >&2; die "$what failed; the whole log: $log"; }
}

# cached PATH WHAT CMD...: runs CMD, which makes PATH, if it is not there. Of any number that ask at a time, the first does, and
# the others wait for it.
cached() {
  local path=$1 what=$2 dir
  shift 2
  [ ! -e "$path" ] || return 0
  dir=$(dirname "$path")
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock -n 9 || { step "waiting for another one that is $what" >&2; flock 9; }
  [ -e "$path" ] || watched "$what" "$dir/build.log" "$@" >&2
  exec 9>&-
}

# digest DIR FILES...: 12 hex characters that name the content of the files.
digest() { (cd "$1" && shift && sha256sum "$@" | sha256sum | cut -c1-12); }

# The cluster binary is named by its sources, so a change of them builds another and going back costs nothing.
binary_path() { echo "$CACHE/cluster-$(cd "$HERE" && LC_ALL=C && digest . ./*.go go.mod go.sum)/lc"; }
images_path() { echo "$CACHE/images-$(digest "$HERE" images.sh pause/main.go)"; }

# free_ports N: the first of N neighbouring TCP ports nobody listens on, below the range clients are given.
free_ports() {
  local n=$1 try port used
  used=$(ss -Htln | awk '{sub(/.*:/, "", $4); print $4}')
  for ((try = 0; try < 100; try++)); do
    port=$((20000 + RANDOM % 10000))
    grep -qxF "$(seq "$port" $((port + n - 1)))" <<<"$used" || { echo "$port"; return 0; }
  done
  die "no $n free neighbouring TCP ports found between 20000 and 30000"
}
