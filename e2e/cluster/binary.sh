#!/usr/bin/env bash
# binary.sh: prints the path of the cluster binary, building it first where the cache has none (minutes, once).
# Any number of these may run at a time: the first builds, the others wait for it.
. "$(dirname "$0")/lib.sh"

lc=$(binary_path)
dir=$(dirname "$lc")
build() {
  (cd "$HERE" && retry go mod download)
  "$HERE/build.sh" "$dir/lc.new"
  mv "$dir/lc.new" "$lc"
}
cached "$lc" "building the cluster binary with Go, once: about 8 minutes on 2 cores" build
echo "$lc"
