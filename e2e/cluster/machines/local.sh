# shellcheck shell=bash
# A node in namespaces of this machine. See lc.sh.
LC_BIN=$(binary_path)
export KUBECONFIG LC_BIN LC_STATE=$STATE/lc LC_NAME=finaiflow LC_INDEX
KUBECONFIG=$LC_STATE/admin.kubeconfig
[ ! -f "$STATE/index" ] || LC_INDEX=$(<"$STATE/index")
lc() { "$HERE/lc.sh" "$@"; }

taken() { # INDEX: a cluster, or anything else on this machine, uses its addresses or ports
  local used
  used=$(ss -Htln | awk '{sub(/.*:/, "", $4); print $4}')
  [ -n "$(ip -4 route show root "10.213.$1.0/24")$(ip -4 route show root "10.$((100 + $1)).0.0/16")" ] ||
    grep -qxF "$(seq $((16443 + 10 * $1)) $((16448 + 10 * $1)))" <<<"$used"
}
choose() {
  for ((LC_INDEX = ${FINAIFLOW_INDEX:-0}; LC_INDEX < 100; LC_INDEX++)); do
    taken "$LC_INDEX" || { echo "$LC_INDEX" >"$STATE/index"; return 0; }
  done
  die "all cluster indices from ${FINAIFLOW_INDEX:-0} to 99 are taken"
}

start() {
  [ "$(id -u)" = 0 ] || die "a node needs root (network namespaces, cgroups): run this as root, or with CLUSTER=light"
  "$HERE/binary.sh" >/dev/null
  "$HERE/images.sh" base
  remember
  mkdir -p "$LC_STATE"
  cp -u "$(images_path)/pause.tar" "$LC_STATE/"
  tools
  (
    # One chooses at a time. What is started must not inherit the lock, or it would be held for ever.
    flock 9
    [ -f "$STATE/index" ] || choose
    LC_INDEX=$(<"$STATE/index")
    step "starting Kubernetes: index $LC_INDEX, state in $STATE"
    lc up 9>&-
  ) 9>"$CACHE/index.lock"
  LC_INDEX=$(<"$STATE/index")
}
has() { lc has "$1"; }
put() { lc load "$1"; }
tear_down() {
  [ ! -f "$STATE/index" ] || lc purge # without, it was never started
  forget lc
}
processes() { lc status; }
url() { echo "http://10.213.$LC_INDEX.2:30080"; }
