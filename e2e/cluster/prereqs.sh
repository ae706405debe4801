#!/usr/bin/env bash
# prereqs.sh [integration|story|bench]: installs what is missing from Debian's packages (as root), names the command for the
# rest; with `integration` or `story` what those tests need, too, with `bench` what the benchmarks compare with.
. "$(dirname "$0")/machine.sh"
machine

# A command or file, and the package that has it: asked for by file, so that another vendor's containerd is fine too.
wanted=(curl:curl jq:jq openssl:openssl unshare:util-linux pgrep:procps ss:iproute2 /etc/ssl/certs/ca-certificates.crt:ca-certificates)
prebuilt || wanted+=(
  gcc:gcc /usr/include/stdio.h:libc6-dev ld:binutils strip:binutils objdump:binutils make:make git:git
  shellcheck:shellcheck /usr/lib/postgresql/15/bin/postgres:postgresql-15
  redis-check-rdb:redis-tools # is the server, too; redis-server would start a service
)
[ "$CLUSTER" != local ] || wanted+=(
  containerd:containerd ctr:containerd runc:runc /usr/lib/cni/bridge:containernetworking-plugins
  ip:iproute2 nft:nftables iptables:iptables conntrack:conntrack
)
[ "${1:-}" != integration ] || wanted+=(npm:npm) # fetches PostgreSQL 18
[ "${1:-}" != story ] || wanted+=(chromium:chromium chromedriver:chromium-driver /usr/lib/python3.11/ensurepip:python3-venv)
[ "${1:-}" != bench ] || wanted+=(nginx:nginx-light)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for w in "${wanted[@]}"; do
  command -v "${w%%:*}" >/dev/null || [ -e "${w%%:*}" ] || missing+=("${w#*:}")
done

install() {
  export DEBIAN_FRONTEND=noninteractive
  retry apt-get -qq update
  # Debian's PostgreSQL would start a server of its own; only the programs are wanted.
  if ! [ -e /etc/postgresql-common/createcluster.conf ]; then
    retry apt-get -qq install -y --no-install-recommends postgresql-common
    sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
  fi
  # Nor is NGINX to serve: this is asked before a package starts a service.
  if ! [ -e /usr/sbin/policy-rc.d ]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT # of the shell in the background that this runs in
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod 755 /usr/sbin/policy-rc.d
  fi
  retry apt-get -qq install -y --no-install-recommends "$@"
}
if [ ${#missing[@]} -gt 0 ]; then
  mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
  how="apt-get update && apt-get install -y --no-install-recommends ${missing[*]}"
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (names of Debian packages); this is written for Debian 12"
  [ "$(id -u)" = 0 ] || die "missing packages; install them with: sudo sh -c '$how'"
  log=$(mktemp)
  watched "installing ${missing[*]}" "$log" install "${missing[@]}"
  rm -f "$log"
fi

PATH=$PATH:${HOME:-/root}/.cargo/bin:/usr/local/go/bin
rust() {
  local pin how t pinned
  command -v cargo >/dev/null || die "Rust is missing; install it with: curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
  pin=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$ROOT/rust-toolchain.toml")
  if command -v rustup >/dev/null; then
    # rustup knows the pinned release by its number only. Where it is there as `stable`, that spares the download, and
    # works on a machine that cannot download.
    for t in "${RUSTUP_HOME:-$HOME/.rustup}"/toolchains/*-*-*; do
      pinned=${t%/*}/$pin-${t#"${t%/*}"/*-}
      [ -e "$pinned" ] || [[ "$("$t/bin/rustc" --version)" != "rustc $pin "* ]] || ln -s "$t" "$pinned"
    done
    how=(rustup toolchain install "$pin" --profile minimal -c clippy -c rustfmt)
    (cd "$ROOT" && cargo --version) >/dev/null 2>&1 || retry "${how[@]}" ||
      die "Rust $pin is missing; install it with: ${how[*]}"
  else
    [[ "$(rustc --version)" == "rustc $pin "* ]] || die "Rust $pin is missing; install rustup with: curl -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal"
  fi
}
prebuilt || rust

# Debian 12's Go is older than go.mod asks for. From 1.21 on, go fetches the version it needs by itself.
need=$(sed -n 's/^go //p' "$HERE/go.mod")
have=$(go env GOVERSION 2>/dev/null | sed 's/^go//') || true
if ! installed_tools && [ ! -x "$(binary_path)" ] && [ "$(printf '1.21\n%s\n' "${have:-0}" | sort -V | head -1)" != 1.21 ]; then
  die "Go $need or newer is missing (found: ${have:-none}); install it with:
  curl -sSfL https://go.dev/dl/go$need.linux-$(dpkg --print-architecture).tar.gz | tar -C /usr/local -xz && export PATH=\$PATH:/usr/local/go/bin"
fi

if [ "${1:-}" = story ]; then
  log=$(mktemp)
  watched "schemathesis" "$log" "$ROOT/e2e/contract/schemathesis.sh" --version
  rm -f "$log"
fi
