#!/usr/bin/env bash
# up.sh: from a fresh machine to a served tenant; run again, it brings what changed up to date.
. "$(dirname "$0")/machine.sh"
cd "$ROOT"

build() {
  local background=''
  if ! installed_tools; then
    "$HERE/binary.sh" >/dev/null & # compiles on the second core; waited for below
    background=$!
    # shellcheck disable=SC2064 # this process
    trap "kill $background 2>/dev/null || true" EXIT # its messages end with ours, the compiler does not
  fi
  if ! prebuilt; then
    step "building the programs with cargo (minutes the first time)"
    retry cargo fetch --locked --quiet
    cargo build --locked --workspace --bins
  fi
  [ -z "$background" ] || wait "$background" || die "the cluster binary was not built"
  trap - EXIT
}

machine
"$HERE/prereqs.sh"
machine_begin
build
"$HERE/cluster.sh" up
machine_begin # again: an index, ports are chosen now
load
install
eval "$("$HERE/cluster.sh" env)"
samples
# Ready pods come before the rules, or the tunnel, for the port that leads to them.
curl -sf --retry 60 --retry-delay 1 --retry-all-errors --max-time 2 -o /dev/null "$FINAIFLOW_URL/readyz" || die "no answer from $FINAIFLOW_URL/readyz"
step "walking the story"
"$ROOT/e2e/story.sh"

cat <<END

FinaiFlow is up (CLUSTER=$CLUSTER), $(elapsed) s after the start.
$(limits)
  API          $FINAIFLOW_URL/api/v1   (name the tenant with the header X-Tenant-ID: acme)
  reference    $FINAIFLOW_URL/docs

Next, try:

  eval "\$(make -s env)"          # kubectl, helm, KUBECONFIG and FINAIFLOW_URL for this shell
  kubectl get tenants -A
  kubectl -n banks describe tenant acme
  e2e/story.sh globex             # the same story at the other bank
  make status | make logs | make down
END
