#!/usr/bin/env bash
# test.sh TARGET...: test targets of e2e/tests, on a cluster of their own that is taken down at the end, whatever the end.
. "$(dirname "$0")/lib.sh"
[ $# -gt 0 ] || { sed -n '2p' "$0" >&2; exit 2; }
cd "$ROOT"
export FINAIFLOW_STATE=${FINAIFLOW_TEST_STATE:-$ROOT/.state-test} FINAIFLOW_INDEX=${FINAIFLOW_TEST_INDEX:-50}
exec 8>"$FINAIFLOW_STATE.lock"
flock -n 8 || die "another test run uses $FINAIFLOW_STATE"

# shellcheck disable=SC2317 # called by the trap
finish() {
  local rc=$?
  [ "$rc" = 0 ] || evidence >&2 || true
  "$HERE/cluster.sh" down
  rm -f "$FINAIFLOW_STATE.lock"
  exit "$rc"
}
# shellcheck disable=SC2317 # called by finish
evidence() {
  step "failed; the state of the cluster:"
  "$HERE/cluster.sh" status
  "$HERE/cluster.sh" kubectl get tenants -A -o yaml
  "$HERE/cluster.sh" kubectl get events -A --sort-by=.lastTimestamp | tail -n 60
  "$HERE/cluster.sh" kubectl describe pods -n finaiflow-system | tail -n 120
  TAIL=100 "$HERE/cluster.sh" logs
}
env -u CLUSTER "$HERE/cluster.sh" down # what a killed run left
. "$HERE/machine.sh" # which reads of the state directory named above
machine
[ "$CLUSTER" != existing ] || die "the tests kill and break things, and so need a cluster of their own: CLUSTER=local, kind or light"
[ "$CLUSTER" = light ] || "$HERE/prereqs.sh" story
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$HERE/up.sh" 8>&-
eval "$("$HERE/cluster.sh" env)"
run() { # TARGET ARGS...
  step "e2e/tests/$1"
  cargo test --locked --workspace --test "$1" -- --nocapture "${@:2}"
}
regions() { # the image of the S3 servers that the story runs as pods
  machine_begin
  "$HERE/images.sh" program versitygw:dev "$("$HERE/s3_server.sh")" "$STATE/images"
  has "$REGISTRY/versitygw:dev" || put "$STATE/images/versitygw.tar" "$REGISTRY/versitygw:dev" >/dev/null
}
if [ "$CLUSTER" != light ]; then
  [[ " $* " != *' story '* ]] || regions
  for target in "$@"; do run "$target"; done
  exit
fi
without_pods=(deletion isolation manifests money provisioning rate_limits)
run story "${without_pods[@]/%/::}" --skip events_tell_the_story
step "left out, as there are no pods: the targets but story, provisioning::events_tell_the_story, and of the modules"
sed -n 's/^mod \(.*\);/\1/p' e2e/tests/story/main.rs | grep -vxF "$(printf '%s\n' "${without_pods[@]}")"
