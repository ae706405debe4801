# shellcheck shell=bash
# No node: the Kubernetes API (see lc.sh), PostgreSQL, the operator and one API server as processes of this user, each
# with the rights that the charts give it.
LC_BIN=$(binary_path)
export LC_BIN LC_STATE=$STATE/lc LC_LIGHT=1 LC_PORT FINAIFLOW_CONNINFO
KUBECONFIG=$LC_STATE/admin.kubeconfig
# shellcheck source-path=SCRIPTDIR/..
. "$HERE/postgres.sh"
lc() { "$HERE/lc.sh" "$@"; }
ports() { # of 11 neighbours, lc.sh takes the first six
  LC_PORT=$(<"$STATE/port")
  PGPORT=$((LC_PORT + 6)) API=$((LC_PORT + 7)) METRICS=$((LC_PORT + 8)) HEALTH=$((LC_PORT + 9)) ADMIN=$((LC_PORT + 10))
  DATABASE=$(<"$STATE/database")
  FINAIFLOW_CONNINFO="host=$DATABASE/pg port=$PGPORT user=postgres dbname=finaiflow"
}
[ ! -f "$STATE/database" ] || ports
limits() {
  cat <<'END'
This is the light form: there is no node, so no pods. What it cannot show: verification jobs (they are made, and wait; a
Tenant's LedgerVerified stays Unknown), the isolation by NetworkPolicy, several replicas, rolling updates and drains.
END
}

start() {
  local log=$STATE/log/start.log
  mkdir -p "$STATE/log"
  [ -f "$STATE/port" ] || free_ports 11 >"$STATE/port"
  # `postgres` may not enter root's directories.
  [ -f "$STATE/database" ] || if [ "$(id -u)" = 0 ]; then mktemp -d /var/tmp/finaiflow.XXXXXX; else echo "$STATE/postgresql"; fi >"$STATE/database"
  ports
  remember
  tools
  step "starting the Kubernetes API and PostgreSQL as processes of $(id -un), state in $STATE"
  { lc up && database; } >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "they did not start; the whole log: $log"; }
}
database() { # as the chart prepares it; but the superuser's socket is where only its owner and root can go
  export PGDATA=$DATABASE/pg ADMIN_PASSWORD_FILE=$DATABASE/password
  if [ ! -f "$ADMIN_PASSWORD_FILE" ]; then
    mkdir -p "$DATABASE" && chmod 700 "$DATABASE"
    (umask 077 && openssl rand -hex 24 | tr -d '\n' >"$ADMIN_PASSWORD_FILE")
    cp "$ROOT/charts/finaiflow/files/postgresql/prepare.sh" "$DATABASE/"
    printf '%s\n' 'local all all trust' 'host finaiflow all 127.0.0.1/32 scram-sha-256' >"$DATABASE/pg_hba.conf"
    pg_own -R "$DATABASE"
  fi
  pg pg_ctl -D "$PGDATA" status >/dev/null 2>&1 && return 0
  pg sh "$DATABASE/prepare.sh" && pg_start "$PGDATA" "$PGPORT" "-c hba_file=$DATABASE/pg_hba.conf -c max_connections=200"
}
load() { :; }
# The charts without what makes pods of it, so that nothing waits for pods that cannot come.
install() {
  local class="databaseClasses: [{name: default, servers: [{name: primary, capacity: 500, adminSecretName: finaiflow-postgres-admin,"
  local endpoint="{host: 127.0.0.1, port: $PGPORT, database: finaiflow, sslMode: disable"
  step "applying the charts' resources, but for those that make pods"
  kubectl apply -f config/base/namespace.yaml -f config/samples/namespace.yaml
  helm upgrade --install finaiflow-crds charts/finaiflow-crds --namespace finaiflow-system --wait >/dev/null
  kubectl -n finaiflow-system create secret generic finaiflow-postgres-admin --type=kubernetes.io/basic-auth \
    --from-literal=username=finaiflow_admin --from-file="password=$DATABASE/password" --dry-run=client -o yaml | kubectl apply -f -
  echo "$class adminEndpoint: $endpoint}, tenantEndpoint: $endpoint, pooled: false}}]}]" |
    helm template finaiflow charts/finaiflow --namespace finaiflow-system --values charts/finaiflow/values-dev.yaml --values - \
      --set postgresql.enabled=false,redis.enabled=false |
    kubectl create --dry-run=client -o json -f - |
    jq 'if .kind == "List" then .items[] else . end |
      select(.kind | IN("Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "Service", "NetworkPolicy") | not)' |
    kubectl apply -f -
  programs
}
programs() {
  local at=127.0.0.1 program
  step "starting the operator and the API server"
  kubectl -n finaiflow-system get configmap finaiflow-operator -o 'jsonpath={.data.config\.yaml}' |
    sed "s|^\( *url: \).*|\1$(url)|" >"$STATE/operator.yaml"
  for program in operator api; do
    stop "$program"
    account "$program"
    cp "$BINARIES/finaiflow-$program" "$STATE/bin/"
  done
  export POD_NAMESPACE=finaiflow-system RUST_LOG=info
  KUBECONFIG=$STATE/operator.kubeconfig POD_NAME=finaiflow-operator HOSTNAME=finaiflow-operator \
    FINAIFLOW_METRICS_ADDRESS=$at:$METRICS FINAIFLOW_HEALTH_ADDRESS=$at:$HEALTH \
    keep operator "$STATE/bin/finaiflow-operator" --config "$STATE/operator.yaml"
  KUBECONFIG=$STATE/api.kubeconfig POD_NAME=finaiflow-api FINAIFLOW_LISTEN=$at:$API FINAIFLOW_BASE_DOMAIN=bank.local FINAIFLOW_REPLICAS=1 \
    RATE_LIMIT_REQUESTS=1000000 FINAIFLOW_ADMIN_LISTEN=$at:$ADMIN \
    FINAIFLOW_ISSUER_BASE_URL=$(url) FINAIFLOW_SHUTDOWN_DELAY_SECONDS=0 keep api "$STATE/bin/finaiflow-api"
}
account() { # a kubeconfig with the rights of a program's ServiceAccount, and no more
  local token
  token=$(kubectl -n finaiflow-system create token "finaiflow-$1" --duration=8760h)
  (umask 077 && sed "s|, user: {.*|, user: {token: $token}}]|" "$KUBECONFIG" >"$STATE/$1.kubeconfig")
}
tear_down() {
  stop api
  stop operator
  pg_stop "$DATABASE/pg" fast || true
  lc purge
  rm -rf "$DATABASE"
  forget lc database operator.yaml operator.kubeconfig api.kubeconfig
}
report() {
  local rc=0
  lc status || rc=3
  pg pg_ctl -D "$DATABASE/pg" status | head -n 1 || rc=3
  ready operator "$HEALTH" || rc=3
  ready api "$API" || rc=3
  [ "$rc" != 0 ] || kubectl get tenants -A
  limits
  return $rc
}
ready() { # PROGRAM PORT
  state_of "$1" || return
  curl -sf --max-time 2 -o /dev/null "http://127.0.0.1:$2/readyz" || { echo "$1 is not ready"; return 3; }
}
logs() {
  local log
  for log in "$DATABASE/pg/log" "$STATE/log/operator.log" "$STATE/log/api.log"; do
    echo "==> $log"
    tail -n "${TAIL:-200}" "$log" || true
  done
}
url() { echo "http://127.0.0.1:$API"; }
