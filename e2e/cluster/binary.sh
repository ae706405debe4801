#!/usr/bin/env bash
# binary.sh: prints the path of the cluster binary, building it first where the cache has none (minutes, once).
# Any number of these may run at a time: the first builds, the others wait for it.
. "$(dirname "$0")/lib.sh"

lc=$(binary_path)
dir=$(dirname "$lc")
build() {
  [ -x "$lc" ] && return 0
  (cd "$HERE" && retry go mod download)
  "$HERE/build.sh" "$dir/lc.new"
  mv "$dir/lc.new" "$lc"
}
if [ ! -x "$lc" ]; then
  mkdir -p "$dir"
  exec 9>"$dir/lock"
  flock -n 9 || { step "another build of the cluster binary runs: waiting for it" >&2; flock 9; }
  watched "building the cluster binary with Go, once: about 8 minutes on 2 cores" "$dir/build.log" build >&2
fi
echo "$lc"
