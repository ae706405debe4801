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
"$HERE/prereqs.sh" story
"$HERE/cluster.sh" down # what a killed run left
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

"$HERE/up.sh" 8>&-
eval "$("$HERE/cluster.sh" env)"
for target in "$@"; do
  step "e2e/tests/$target"
  cargo test --locked --workspace --test "$target" -- --nocapture
done
