# shellcheck shell=bash
# The cluster of the current kubectl context: FinaiFlow is installed, and taken away again without a trace of it or a
# scratch on the rest.
#
#   IMAGE_REGISTRY            where the images are pushed, with docker or skopeo, as registry.example.com/team
#   OPERATOR_IMAGE API_IMAGE  or: images that are in a registry already, as REPOSITORY:TAG; then nothing is built
#   POSTGRES_IMAGE            with them, for the development server
#   BACKUP_IMAGE              with them, for jobs of Backups, which are not offered without it
#   VALUES                    values of the chart instead of values-dev.yaml, say with a PostgreSQL of yours and images
#   FINAIFLOW_URL             where the API server answers, if not through a port-forward
#
# kubectl's context is read once and kept: whoever switches theirs does not switch ours.
export USERS_KUBECONFIG=${USERS_KUBECONFIG-${KUBECONFIG:-}}
KUBECONFIG=$STATE/kubeconfig
VALUES=${VALUES:-charts/finaiflow/values-dev.yaml}

start() {
  local context
  if prebuilt && [ "$VALUES" = charts/finaiflow/values-dev.yaml ] && [[ -z "${OPERATOR_IMAGE:-}" || -z "${API_IMAGE:-}" ]]; then
    die "CLUSTER=existing needs images that the cluster can pull: set IMAGE_REGISTRY, or OPERATOR_IMAGE, API_IMAGE and
POSTGRES_IMAGE, or VALUES; see e2e/cluster/machines/existing.sh"
  fi
  remember
  tools
  if [ ! -f "$KUBECONFIG" ]; then
    (umask 077 && KUBECONFIG=$USERS_KUBECONFIG kubectl config view --minify --flatten --raw >"$KUBECONFIG.new") ||
      { forget kubeconfig.new; die "kubectl has no current context: set KUBECONFIG or use kubectl config use-context"; }
    mv "$KUBECONFIG.new" "$KUBECONFIG"
  fi
  context=$(kubectl config current-context)
  kubectl version >/dev/null || { forget kubeconfig; die "the cluster of the context $context does not answer"; }
  step "the cluster of the context $context"
}

# ours KIND NAME [NAMESPACE]: whether we made it. What is not there yet is, from now on; it is noted before it is made.
ours() {
  local it="$1 $2 ${3:-}" found what=("$1" "$2" --ignore-not-found)
  grep -qxF "$it" "$STATE/ours" 2>/dev/null && return 0
  [ "$1" != release ] || what=(secrets --selector "owner=helm,name=$2") # where Helm keeps it
  # No answer does not say that there is nothing.
  found=$(kubectl get "${what[@]}" ${3:+--namespace "$3"} -o name) || die "the cluster does not say whether there is a $1 $2"
  [ -z "$found" ] || return 1
  echo "$it" >>"$STATE/ours"
}
each() { [ ! -f "$STATE/ours" ] || awk -v kind="$1" '$1 == kind {print $2, $3}' "$STATE/ours"; } # KIND: NAME NAMESPACE of ours

wanted_images() { # KEY IMAGE, of what shall not be as VALUES say
  if [ -n "${IMAGE_REGISTRY:-}" ]; then
    echo "operator.image $REGISTRY/finaiflow-operator:$(tag finaiflow-operator)"
    echo "apiServer.image $REGISTRY/finaiflow-api:$(tag finaiflow-api)"
    echo "backups.image $REGISTRY/finaiflow-backup:$(tag finaiflow-backup)"
    echo "postgresql.image $REGISTRY/postgres:$HELPERS"
    echo "redis.image $REGISTRY/redis:$HELPERS"
    return
  fi
  [ -z "${OPERATOR_IMAGE:-}" ] || echo "operator.image $OPERATOR_IMAGE"
  [ -z "${API_IMAGE:-}" ] || echo "apiServer.image $API_IMAGE"
  [ -z "${BACKUP_IMAGE:-}" ] || echo "backups.image $BACKUP_IMAGE"
  [ -z "${POSTGRES_IMAGE:-}" ] || echo "postgresql.image $POSTGRES_IMAGE"
  [ -z "${REDIS_IMAGE:-}" ] || echo "redis.image $REDIS_IMAGE"
}
if ! prebuilt; then REGISTRY=$IMAGE_REGISTRY HELPERS=$(basename "$(images_path)"); else load() { :; }; fi
has() { return 1; } # a push of what is there is short
put() { # ARCHIVE IMAGE
  local loaded
  if docker_answers; then
    loaded=$(docker load --quiet --input "$1")
    docker tag "${loaded#*: }" "$2" && docker push --quiet "$2"
  elif command -v skopeo >/dev/null; then
    skopeo copy --quiet "docker-archive:$1" "docker://$2"
  else
    die "to push images, docker with its daemon or skopeo is needed (apt-get install skopeo)"
  fi
}
install() {
  local file set='' key image none=()
  for key in finaiflow-crds finaiflow; do
    ours release "$key" finaiflow-system || die "the Helm release $key is in finaiflow-system already, and not from here: nothing was changed"
  done
  for file in base samples; do
    # In a namespace of yours nothing is changed, labels included.
    if ours namespace "$(sed -n 's/^  name: //p' "config/$file/namespace.yaml")"; then kubectl apply -f "config/$file/namespace.yaml"; fi
  done
  # What outlives the releases.
  for key in tenants ratelimitpolicies backups restores; do ours customresourcedefinition "$key.finaiflow.io" || true; done
  ours persistentvolumeclaim data-finaiflow-postgres-0 finaiflow-system || true
  ours secret finaiflow-postgres-admin finaiflow-system || true
  if prebuilt && [ "$VALUES" = charts/finaiflow/values-dev.yaml ] && [ -z "${BACKUP_IMAGE:-}" ]; then none=(--set backups.enabled=false); fi
  while read -r key image; do set+=",$(image_value "$key" "$image")"; done < <(wanted_images)
  install_charts --values "$VALUES" --set "apiServer.service.type=ClusterIP" "${none[@]}" --set-string "${set#,}"
}
forward() { # a tunnel to the Service; the pod at its other end may go, and then it is made again
  [ -f "$STATE/port" ] || free_ports 1 >"$STATE/port"
  keep port-forward kubectl -n finaiflow-system port-forward service/finaiflow-api "$(<"$STATE/port"):8000"
}
url() {
  [ -n "${FINAIFLOW_URL:-}" ] || forward
  echo "${FINAIFLOW_URL:-http://127.0.0.1:$(<"$STATE/port")}"
}
samples() {
  local file name
  step "applying config/samples"
  for file in config/samples/tenant*.yaml; do
    name=$(sed -n 's/^  name: //p' "$file")
    ours tenant "$name" banks || die "the Tenant banks/$name is there already, and not from here: nothing of it was changed"
    kubectl apply -f "$file"
    kubectl -n banks wait --for=condition=Ready "tenant/$name" --timeout=120s
  done
}
alone() { # every Tenant there is, is ours; an API that does not answer is no answer
  local crd all others
  crd=$(kubectl get customresourcedefinition tenants.finaiflow.io --ignore-not-found -o name)
  [ -n "$crd" ] || return 0
  all=$(kubectl get tenants -A -o 'jsonpath={range .items[*]}{.metadata.name} {.metadata.namespace}{"\n"}{end}')
  others=$(grep -vxF "$(each tenant)" <<<"$all" || true)
  [ -z "$others" ] || die "Tenants that are not from here need FinaiFlow, and so it stays; delete them first (name, namespace):
$others"
}
tear_down() {
  local kind name namespace
  alone
  each tenant | while read -r name namespace; do
    # Nothing of a sample bank is to stay, in whatever PostgreSQL it is.
    kubectl -n "$namespace" patch tenant "$name" --type merge -p '{"spec":{"deletionPolicy":"Delete"}}' </dev/null || continue
    kubectl -n "$namespace" delete tenant "$name" --timeout=120s </dev/null
  done
  # Their finalizers are the operator's to take away. Only Tenants that are ours are left, so these are theirs.
  for kind in restores backups; do
    each customresourcedefinition | grep -q "^$kind" || continue
    kubectl delete "$kind.finaiflow.io" --all --all-namespaces --ignore-not-found --timeout=120s </dev/null
  done
  each release | sort | while read -r name namespace; do
    helm uninstall "$name" --namespace "$namespace" --ignore-not-found --wait </dev/null
  done
  alone # with their definition, Tenants go
  for kind in customresourcedefinition persistentvolumeclaim secret namespace; do
    each "$kind" | while read -r name namespace; do
      kubectl delete "$kind" "$name" ${namespace:+--namespace "$namespace"} --ignore-not-found --timeout=180s </dev/null
    done
  done
  stop port-forward
  forget kubeconfig ours
}
