# shellcheck shell=bash
# shellcheck disable=SC2034 # what is set here is for them
# Sourced by up.sh, cluster.sh, test.sh and prereqs.sh: on what kind of cluster FinaiFlow runs here. CLUSTER says it; else
#
#   kind       a node in docker, where a docker daemon answers and kind is installed
#   local      a node in namespaces of this machine, where this is root with the right to make them
#   light      no node: the Kubernetes API, PostgreSQL and both programs as processes of this user
#
# and only when asked for:
#
#   existing   the cluster of the current kubectl context
#
# A state directory stays with what it was made for. machines/$CLUSTER.sh holds what differs; machine_begin reads it.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
S=$STATE
. "$HERE/processes.sh"
export CLUSTER

docker_answers() { command -v docker >/dev/null && timeout 10 docker info >/dev/null 2>&1; }
may_isolate() { # namespaces, interfaces, cgroups; asked of the kernel, for a fresh machine lacks the tools
  local caps
  caps=$(awk '/^CapEff/{print $2}' /proc/self/status)
  [ "$(id -u)" = 0 ] && (((0x$caps >> 12) & 1)) && [ -w "${CGROUPS:-/sys/fs/cgroup}" ] &&
    unshare --mount --pid --net --uts --ipc --fork true 2>/dev/null
}
machine() {
  local known=''
  [ ! -f "$STATE/machine" ] || known=$(<"$STATE/machine")
  if [ -n "$known" ]; then
    [ "${CLUSTER:-$known}" = "$known" ] || die "$STATE is of CLUSTER=$known: make down first, or name another FINAIFLOW_STATE"
    CLUSTER=$known
  elif [ -z "${CLUSTER:-}" ]; then
    if command -v kind >/dev/null && docker_answers; then CLUSTER=kind
    elif may_isolate; then CLUSTER=local
    else CLUSTER=light; fi
  fi
  case $CLUSTER in local | kind | existing | light) ;; *) die "CLUSTER=$CLUSTER: one of local, kind, existing, light" ;; esac
}
machine_begin() {
  machine
  # shellcheck source-path=SCRIPTDIR source=machines/local.sh
  . "$HERE/machines/$CLUSTER.sh"
  export KUBECONFIG PATH=$STATE/bin:$PATH
}
remember() { mkdir -p "$STATE/bin" && echo "$CLUSTER" >"$STATE/machine"; }
there() { [ -f "$STATE/machine" ] || [ -f "$STATE/index" ]; }
forget() { # what this file and the machine's put into the state directory
  (cd "$STATE" && rm -rf machine bin images index loaded port run log "$@")
  rmdir --ignore-fail-on-non-empty "$STATE"
}
# On a cluster that is not of our binary, an installed kubectl and helm do.
installed_tools() {
  case $CLUSTER in kind | existing) command -v kubectl >/dev/null && command -v helm >/dev/null ;; *) false ;; esac
}
tools() {
  local lc
  ! installed_tools || return 0
  lc=$("$HERE/binary.sh")
  ln -sf "$lc" "$STATE/bin/kubectl"
  ln -sf "$lc" "$STATE/bin/helm"
}
prebuilt() { [ "$CLUSTER" = existing ] && [ -z "${IMAGE_REGISTRY:-}" ]; }

# --- what machines do alike ------------------------------------------------------------------
BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/debug
# Named by content: a changed program, and only that, makes another image and rolls its pods.
tag() { echo "dev-$(sha256sum <"$BINARIES/$1" | cut -c1-12)"; }
REGISTRY=localhost HELPERS=dev # where images are named, and the tag of PostgreSQL's and Redis'
load() { # by the machine's has IMAGE, and put ARCHIVE IMAGE
  local name image
  if [ "$(cat "$STATE/loaded" 2>/dev/null)" != "$(images_path)" ]; then
    step "loading the images of PostgreSQL and Redis"
    "$HERE/images.sh" base
    for name in postgres redis; do put "$(images_path)/$name.tar" "$REGISTRY/$name:$HELPERS" >/dev/null; done
    images_path >"$STATE/loaded"
  fi
  for name in finaiflow-operator finaiflow-api finaiflow-backup; do
    image=$name:$(tag "$name")
    if ! has "$REGISTRY/$image"; then
      step "loading the image $image"
      "$HERE/images.sh" program "$image" "$BINARIES/$name" "$STATE/images"
      put "$STATE/images/$name.tar" "$REGISTRY/$image" >/dev/null
    fi
  done
}
install() {
  # The namespaces come first, with the Pod Security they enforce; in the second one the chart binds the operator's rights.
  kubectl apply -f config/base/namespace.yaml -f config/samples/namespace.yaml
  install_charts --values charts/finaiflow/values-dev.yaml --set-string \
    "$(image_value operator.image "$REGISTRY/finaiflow-operator:$(tag finaiflow-operator)"),$(image_value apiServer.image "$REGISTRY/finaiflow-api:$(tag finaiflow-api)"),$(image_value backups.image "$REGISTRY/finaiflow-backup:$(tag finaiflow-backup)")"
}
image_value() { echo "$1.repository=${2%:*},$1.tag=${2##*:}"; } # KEY IMAGE
install_charts() { # ARGUMENTS OF helm upgrade
  step "installing the charts into the namespace finaiflow-system"
  helm upgrade --install finaiflow-crds charts/finaiflow-crds --namespace finaiflow-system --wait >/dev/null
  helm upgrade --install finaiflow charts/finaiflow --namespace finaiflow-system "$@" --wait --timeout 180s >/dev/null
}
samples() {
  step "applying config/samples"
  kubectl apply -k config/samples
  kubectl -n banks wait --for=condition=Ready tenant --all --timeout=120s
}
processes() { :; }
report() {
  processes || return
  kubectl get pods -A -o wide
  kubectl get tenants -A 2>/dev/null || echo "no tenants: FinaiFlow is not installed yet"
}
logs() {
  local w
  for w in statefulset/finaiflow-postgres deployment/finaiflow-operator deployment/finaiflow-api; do
    echo "==> $w"
    kubectl -n finaiflow-system logs "$w" --all-pods --tail="${TAIL:-200}" || true
  done
}
limits() { :; } # what cannot be shown on it
