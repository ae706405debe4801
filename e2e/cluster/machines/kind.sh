# shellcheck shell=bash
# A node in docker, by kind.
KUBECONFIG=$STATE/kubeconfig
KIND_NAME=finaiflow-$(printf %s "$STATE" | sha256sum | cut -c1-6) # one for each state directory

start() {
  command -v kind >/dev/null || die "kind is missing; install it with: go install sigs.k8s.io/kind@latest"
  docker_answers || die "no docker daemon answers"
  mkdir -p "$STATE"
  [ -f "$STATE/port" ] || free_ports 1 >"$STATE/port"
  remember
  tools
  if ! kind get clusters 2>/dev/null | grep -qxF "$KIND_NAME"; then
    step "starting Kubernetes: kind cluster $KIND_NAME"
    kind create cluster --name "$KIND_NAME" --kubeconfig "$KUBECONFIG" --wait 180s --config - <<END
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
  - role: control-plane
    extraPortMappings: [{containerPort: 30080, hostPort: $(<"$STATE/port"), listenAddress: 127.0.0.1}]
END
  fi
}
has() { [ -n "$(docker exec "$KIND_NAME-control-plane" ctr -n k8s.io images list -q "name==$1")" ]; }
put() { kind load image-archive "$1" --name "$KIND_NAME"; }
tear_down() {
  kind delete cluster --name "$KIND_NAME" --kubeconfig "$KUBECONFIG"
  forget kubeconfig
}
processes() { docker ps --filter "name=$KIND_NAME"; }
url() { echo "http://127.0.0.1:$(<"$STATE/port")"; }
