#!/bin/sh
# Renders the chart into the kustomize bases: config/base (operator and API server), config/postgresql and config/redis
# (the development servers), config/autoscaling and config/backups. The chart is the one truth; run this after changing it. With --check nothing is written, and a
# difference is an error.
# Needs helm; HELM names it if it is not in the PATH.
set -eu
cd "$(dirname "$0")"
out=.
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
  mkdir "$out/base" "$out/postgresql" "$out/redis" "$out/autoscaling" "$out/backups"
fi

# What Helm says about itself is not true of kustomize, whose generated ConfigMap names replace the checksum.
render() { # ARGUMENTS OF helm template
  echo '# Rendered by config/render.sh from charts/finaiflow; do not edit.'
  ${HELM:-helm} template finaiflow ../charts/finaiflow --namespace finaiflow-system --values base/values.yaml "$@" |
    sed -e '/^ *helm\.sh\/chart:/d' -e '/^ *app\.kubernetes\.io\/managed-by: Helm$/d' -e '/^ *checksum\/config:/d' \
      -e '/^ *# The configuration is read at start\.$/d'
}

render >"$out/base/finaiflow.yaml"
render --set postgresql.enabled=true \
  --show-only templates/postgresql/configmap.yaml --show-only templates/postgresql/networkpolicy.yaml \
  --show-only templates/postgresql/service.yaml --show-only templates/postgresql/statefulset.yaml \
  >"$out/postgresql/postgresql.yaml"
render --set redis.enabled=true \
  --show-only templates/redis/networkpolicy.yaml --show-only templates/redis/service.yaml \
  --show-only templates/redis/deployment.yaml >"$out/redis/redis.yaml"
render --set apiServer.autoscaling.enabled=true --show-only templates/api-server/horizontalpodautoscaler.yaml \
  >"$out/autoscaling/autoscaling.yaml"
# The operator's configuration is the overlay's; the recipient only makes the chart complete.
render --set backups.enabled=true \
  --set 'backups.escrowRecipients={age13aqvttdk3ujkyjh9kg2w5an6dmy5mq5a84a4uxk3hfhnugfc9p0sy5p2wh}' \
  --show-only templates/backups/networkpolicy.yaml --show-only templates/backups/rbac.yaml \
  --show-only templates/backups/serviceaccount.yaml >"$out/backups/backups.yaml"

if [ "$out" != . ]; then
  for file in base/finaiflow.yaml postgresql/postgresql.yaml redis/redis.yaml autoscaling/autoscaling.yaml backups/backups.yaml; do
    diff -u "$file" "$out/$file" || { echo "config/$file is not what the chart says: run config/render.sh" >&2; exit 1; }
  done
fi
