#!/usr/bin/env bash
# check.sh: what must hold for every commit. Cheap checks first. Without cargo-deny its check is left out, and said to be;
# helm comes with the cluster binary, which CI builds for it.
. "$(dirname "$0")/lib.sh"
cd "$ROOT"
GENERATED=(config/crd charts/finaiflow-crds config/openapi.json .env.example)

# Up to the unit tests at its end, a file of ours has at most 500 lines.
long_files() {
  local f lines rc=0
  while read -r f; do
    lines=$(awk '/^#\[cfg\(test\)\]/{exit} {n++} END{print n+0}' "$f")
    [ "$lines" -le 500 ] || { echo "$f: $lines lines before its tests, 500 are allowed" >&2; rc=1; }
  done < <(git ls-files -co --exclude-standard '*.rs' | grep -vE '(^|/)(tests|benches)(/|\.rs$)')
  return $rc
}
# Whether it differs from the last commit is not asked: only whether the sources still say the same.
drift() {
  local before
  before=$(mktemp -d)
  cp -r --parents "${GENERATED[@]}" "$before"
  make --no-print-directory generate
  for f in "${GENERATED[@]}"; do
    diff -r "$before/$f" "$f" || die "$f was not as the sources say; it is now: commit it"
  done
  rm -rf "$before"
}
charts() {
  local lc
  lc=$(binary_path)
  if [ ! -x "$lc" ]; then
    [ -n "${CI:-}" ] || { step "helm lint: left out, the cluster binary with helm in it is not built (make up builds it)"; return 0; }
    lc=$("$HERE/binary.sh")
  fi
  "$lc" helm lint --strict --quiet charts/finaiflow-crds
  "$lc" helm lint --strict --quiet charts/finaiflow --values charts/finaiflow/values-dev.yaml
  HELM="$lc helm" config/render.sh --check
}
dependencies() { # advisories need the network: make audit
  if command -v cargo-deny >/dev/null; then cargo deny --log-level error --workspace check bans licenses sources
  else step "cargo deny: left out; install it with: cargo install --locked cargo-deny"; fi
}

step "formatting"
cargo fmt --all --check
step "length of files"
long_files
step "shell scripts"
git ls-files -co --exclude-standard '*.sh' .ci/run | xargs shellcheck -x -P SCRIPTDIR
e2e/cluster/scripts_test.sh
step "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings
step "unit tests"
make --no-print-directory test-unit
step "licences and duplicates of dependencies"
dependencies
step "generated files"
drift
step "charts"
charts
step "rules for Prometheus"
"$HERE/rules.sh" config/prometheus/*.yaml
step "all checks passed"
