#!/bin/sh
# Renders the chart into the kustomize bases: config/base (operator and API server) and config/postgresql (the
# development server). The chart is the one truth; run this after changing it. With --check nothing is written, and a
# difference is an error.
# Needs helm; HELM names it if it is not in the PATH.
set -eu
cd "$(dirname "$0")"
out=.
if [ "${1:-}" = --check ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
  mkdir "$out/base" "$out/postgresql"
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

if [ "$out" != . ]; then
  for file in base/finaiflow.yaml postgresql/postgresql.yaml; do
    diff -u "$file" "$out/$file" || { echo "config/$file is not what the chart says: run config/render.sh" >&2; exit 1; }
  done
fi
