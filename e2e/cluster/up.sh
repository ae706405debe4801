#!/usr/bin/env bash
# up.sh: from a fresh machine to a served tenant; run again, it brings what changed up to date.
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
BINARIES=${CARGO_TARGET_DIR:-$ROOT/target}/debug

# Named by content: a changed program, and only that, makes another image and rolls its pods.
tag() { echo "dev-$(sha256sum <"$BINARIES/$1" | cut -c1-12)"; }

build() {
  "$HERE/binary.sh" >/dev/null & # compiles on the second core; waited for below
  background=$!
  trap 'kill "$background" 2>/dev/null || true' EXIT # its messages end with ours, the compiler does not
  step "building the programs with cargo (minutes the first time)"
  retry cargo fetch --locked --quiet
  cargo build --locked --workspace --bins
  wait "$background" || die "the cluster binary was not built"
  trap - EXIT
}

load_images() {
  local name tag
  if [ "$(cat "$STATE/loaded" 2>/dev/null)" != "$(images_path)" ]; then
    step "loading the image postgres:dev"
    "$HERE/cluster.sh" load "$(images_path)/postgres.tar" >/dev/null
    images_path >"$STATE/loaded"
  fi
  for name in finaiflow-operator finaiflow-api; do
    tag=$(tag "$name")
    if ! "$HERE/cluster.sh" has "localhost/$name:$tag"; then
      step "loading the image $name:$tag"
      "$HERE/images.sh" program "$name:$tag" "$BINARIES/$name" "$STATE/images"
      "$HERE/cluster.sh" load "$STATE/images/$name.tar" >/dev/null
    fi
  done
}

install() {
  local api
  api=$(tag finaiflow-api)
  step "installing the charts into the namespace finaiflow-system"
  # The namespaces come first, with the Pod Security they enforce; in the second one the chart binds the operator's rights.
  kubectl apply -f config/base/namespace.yaml -f config/samples/namespace.yaml
  helm upgrade --install finaiflow-crds charts/finaiflow-crds --namespace finaiflow-system --wait >/dev/null
  helm upgrade --install finaiflow charts/finaiflow --namespace finaiflow-system --values charts/finaiflow/values-dev.yaml \
    --set-string "operator.image.tag=$(tag finaiflow-operator),apiServer.image.tag=$api,ledgerVerification.image=localhost/finaiflow-api:$api" \
    --wait --timeout 180s >/dev/null
}

tenants() {
  step "applying config/samples"
  kubectl apply -k config/samples
  kubectl -n banks wait --for=condition=Ready tenant --all --timeout=120s
  # Ready pods come before the node's rules for the port that leads to them.
  curl -sf --retry 60 --retry-delay 1 --retry-all-errors --max-time 2 -o /dev/null "$FINAIFLOW_URL/readyz" || die "no answer from $FINAIFLOW_URL/readyz"
}

"$HERE/prereqs.sh"
build
"$HERE/cluster.sh" up
eval "$("$HERE/cluster.sh" env)"
load_images
install
tenants
step "walking the story"
"$ROOT/e2e/story.sh"

cat <<END

FinaiFlow is up, $(elapsed) s after the start.

  API          $FINAIFLOW_URL/api/v1   (name the tenant with the header X-Tenant-ID: acme)
  reference    $FINAIFLOW_URL/docs

Next, try:

  eval "\$(make -s env)"          # kubectl, helm, KUBECONFIG and FINAIFLOW_URL for this shell
  kubectl get tenants -A
  kubectl -n banks describe tenant acme
  e2e/story.sh globex             # the same story at the other bank
  make status | make logs | make down
END
