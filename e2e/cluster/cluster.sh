#!/usr/bin/env bash
# cluster.sh up|down|status|logs|env   the cluster of the state directory, of the kind that machine.sh chooses.
# Any other command goes to lc.sh, where there is one: load ARCHIVE, has IMAGE, enter CMD, kubectl .., ..
#
#   FINAIFLOW_STATE   state directory; clusters with different ones run beside each other        (.state)
#   FINAIFLOW_INDEX   0..99, the first to try: decides addresses and ports of a local cluster    (0)
. "$(dirname "$0")/machine.sh"
machine_begin
cd "$ROOT"

require() { there || die "no cluster in $STATE: start one with make up"; }
up() { start; }
down() {
  there || { echo "no cluster in $STATE"; return 0; }
  tear_down
  echo "what was in $STATE is gone"
}
status() { require && report; }
environment() {
  require
  echo "export KUBECONFIG='$KUBECONFIG'"
  echo "export FINAIFLOW_URL='$(url)'"
  [ -z "${FINAIFLOW_CONNINFO:-}" ] || echo "export FINAIFLOW_CONNINFO='$FINAIFLOW_CONNINFO'"
  echo "export PATH='$STATE/bin':\"\$PATH\""
}
case ${1:-} in
up | down | status) "$1" ;;
logs) require && logs ;;
env) environment ;;
"") sed -n '2,6p' "$0" >&2; exit 2 ;;
kubectl | helm) require && "$@" ;;
*) require && lc "$@" ;;
esac
