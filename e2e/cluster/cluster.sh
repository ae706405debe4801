#!/usr/bin/env bash
# cluster.sh up|down|status|logs|env   the cluster of the state directory, see lib.sh.
# Any other command goes to lc.sh: load ARCHIVE, has IMAGE, enter CMD, ..
#
#   FINAIFLOW_STATE   state directory; clusters with different ones run beside each other   (.state)
#   FINAIFLOW_INDEX   0..99, the first to try: decides addresses and ports                  (0)
. "$(dirname "$0")/lib.sh"

LC_BIN=$(binary_path)
export LC_BIN LC_STATE=$STATE/lc LC_NAME=finaiflow LC_INDEX
lc() { "$HERE/lc.sh" "$@"; }

known() { # this state directory's cluster: its index was written when it was first started
  [ -f "$STATE/index" ] && LC_INDEX=$(<"$STATE/index")
}
require() { known || die "no cluster in $STATE: start one with make up"; }
taken() { # INDEX: a cluster, or anything else on this machine, uses its addresses or ports
  local used
  used=$(ss -Htln | awk '{sub(/.*:/, "", $4); print $4}')
  [ -n "$(ip -4 route show root "10.213.$1.0/24")$(ip -4 route show root "10.$((100 + $1)).0.0/16")" ] ||
    grep -qxF "$(seq $((16443 + 10 * $1)) $((16448 + 10 * $1)))" <<<"$used"
}
choose() {
  for ((LC_INDEX = ${FINAIFLOW_INDEX:-0}; LC_INDEX < 100; LC_INDEX++)); do
    taken "$LC_INDEX" || { mkdir -p "$STATE" && echo "$LC_INDEX" >"$STATE/index"; return 0; }
  done
  die "all cluster indices from ${FINAIFLOW_INDEX:-0} to 99 are taken"
}

up() {
  [ "$(id -u)" = 0 ] || die "a node needs root (network namespaces, cgroups): run this as root"
  "$HERE/binary.sh" >/dev/null
  "$HERE/images.sh" base
  mkdir -p "$LC_STATE" "$STATE/bin"
  cp -u "$(images_path)/pause.tar" "$LC_STATE/"
  ln -sf "$LC_BIN" "$STATE/bin/kubectl"
  ln -sf "$LC_BIN" "$STATE/bin/helm"
  (
    # One chooses at a time. What is started must not inherit the lock, or it would be held for ever.
    flock 9
    known || choose
    step "starting Kubernetes: index $LC_INDEX, state in $STATE"
    lc up 9>&-
  ) 9>"$CACHE/index.lock"
}
down() {
  known || { echo "no cluster in $STATE"; return 0; }
  lc purge
  (cd "$STATE" && rm -rf bin images index loaded)
  rmdir --ignore-fail-on-non-empty "$STATE"
  echo "the cluster of $STATE is gone"
}
status() {
  require
  lc status || return
  lc kubectl get pods -A -o wide
  lc kubectl get tenants -A 2>/dev/null || echo "no tenants: FinaiFlow is not installed yet"
}
logs() {
  require
  local w
  for w in statefulset/finaiflow-postgres deployment/finaiflow-operator deployment/finaiflow-api; do
    echo "==> $w"
    lc kubectl -n finaiflow-system logs "$w" --all-pods --tail="${TAIL:-200}" || true
  done
}
env() {
  require
  echo "export KUBECONFIG='$LC_STATE/admin.kubeconfig'"
  echo "export FINAIFLOW_URL='http://10.213.$LC_INDEX.2:30080'"
  echo "export PATH='$STATE/bin':\"\$PATH\""
}
case ${1:-} in
up | down | status | logs | env) "$1" ;;
"") sed -n '2,6p' "$0" >&2; exit 2 ;;
*) require && lc "$@" ;;
esac
