# The front door. What a target does is in the script it calls; `make help` lists them.
SCRIPTS := e2e/cluster
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help up down status env logs check test test-unit test-mutants test-integration test-story test-chaos test-cluster bench bench-ledger bench-backup bench-tenants generate fmt audit prereqs

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{gsub(/\$$\$$/, "$$"); printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: ## from a fresh machine to two served banks; again: bring them up to date (CLUSTER=local|kind|existing|light)
	@$(SCRIPTS)/up.sh

down: ## take the cluster and everything in it away
	@$(SCRIPTS)/cluster.sh down

status: ## the cluster's processes, pods and tenants
	@$(SCRIPTS)/cluster.sh status

env: ## shell exports for the cluster: eval "$$(make -s env)"
	@$(SCRIPTS)/cluster.sh env

logs: ## the last lines of PostgreSQL, operator and API server (TAIL=200)
	@$(SCRIPTS)/cluster.sh logs

prereqs: ## install what is missing from Debian's packages, or name the command
	@$(SCRIPTS)/prereqs.sh

check: prereqs ## formatting, lints, unit tests, generated files, charts: the gate for every commit
	@$(SCRIPTS)/check.sh

test: test-unit test-mutants test-integration test-cluster ## all tests: the gate for landing

test-unit: ## needs nothing but cargo
	@cargo test --locked --workspace --lib --bins --test sim

test-mutants: ## mistakes made in the ledger's engine on purpose, each of which its simulation has to find
	@ledger/tests/mutants.sh

test-integration: ## against a throw-away PostgreSQL and API server
	@$(SCRIPTS)/prereqs.sh integration
	@$(SCRIPTS)/light.sh cargo test --locked --workspace --test it

test-cluster: ## the story, the documentation's commands, upgrades and chaos, on one cluster of their own
	@$(SCRIPTS)/test.sh story docs upgrade chaos

test-story: ## the whole path, and the documentation's commands
	@$(SCRIPTS)/test.sh story docs

test-chaos: ## the same while everything is killed (FINAIFLOW_CHAOS_SEED= FINAIFLOW_CHAOS_SECONDS=)
	@$(SCRIPTS)/test.sh chaos

bench: ## what limits cost, beside governor and NGINX, and what transfers do, beside pgbench (release profile)
	@$(SCRIPTS)/prereqs.sh bench
	cargo bench --locked -p finaiflow-api --bench rate_limit
	@$(SCRIPTS)/light.sh cargo bench --locked -p finaiflow-api --bench rate_limit_http
	@$(MAKE) --no-print-directory bench-ledger

bench-ledger: ## transfers beside pgbench and cala-ledger (FINAIFLOW_BENCH_SECONDS= FINAIFLOW_BENCH_ROUNDS= FINAIFLOW_BENCH_TENANTS=)
	@$(SCRIPTS)/prereqs.sh bench
	cargo build --locked --release --manifest-path e2e/benches/cala/Cargo.toml --target-dir target/cala
	cargo bench --locked -p finaiflow-api --bench ledger --no-run
	@ulimit -Sn "$$(ulimit -Hn)" && LIGHT_DURABLE=1 $(SCRIPTS)/light.sh cargo bench --locked -p finaiflow-api --bench ledger

bench-backup: ## what backups cost as a ledger grows (FINAIFLOW_BENCH_ENTRIES=1000000)
	@cargo bench --locked -p finaiflow-backup --bench large --no-run
	@LIGHT_DURABLE=1 $(SCRIPTS)/light.sh cargo bench --locked -p finaiflow-backup --bench large

bench-tenants: ## 300 Tenants at once, on the cluster of make up (FINAIFLOW_BENCH_TENANTS=)
	@eval "$$($(SCRIPTS)/cluster.sh env)" && cargo bench --locked --workspace --profile dev --bench tenants

generate: ## custom resource definitions, OpenAPI description and .env.example, from the Rust types
	cargo build --locked --quiet --workspace --bins
	cargo run --locked --quiet --bin generate
	json=$$(cargo run --locked --quiet --bin finaiflow-api -- openapi) && printf '%s\n' "$$json" >config/openapi.json
	settings=$$(bins=$${CARGO_TARGET_DIR:-target}/debug; config/env.sh $$bins/finaiflow-api $$bins/finaiflow-operator $$bins/finaiflow-backup) && printf '%s\n' "$$settings" >.env.example

fmt: ## format the Rust sources
	cargo fmt --all

audit: ## every check of cargo-deny; fetches the advisory database
	cargo deny --workspace check
