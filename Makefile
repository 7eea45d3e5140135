# What one types here. `make demo` and `make test` are all that a fresh machine with Rust and Node needs.
.DEFAULT_GOAL := help
.PHONY: help demo test check lint setup bench bench-accept profile clean

CARGO ?= cargo
# Whatever is built is what the lock file says.
LOCKED := --locked

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## build and start the gateway with its mock LLM; FLAGS=... are passed on
	@scripts/setup build
	$(CARGO) build $(LOCKED) --profile quick --package tollgate
	@exec target/quick/tollgate demo $(FLAGS)

test: setup check ## every check and every test
	$(CARGO) build $(LOCKED) --workspace --all-targets
	$(CARGO) test $(LOCKED) --workspace --no-fail-fast

check: ## formatting, the project's own checks, clippy
	@scripts/setup build
	$(CARGO) fmt --all --check
	$(CARGO) xtask check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- --deny warnings

lint: check ## the above, and licences, sources and advisories of all dependencies (cargo-deny)
	@command -v cargo-deny >/dev/null || { echo 'make lint: cargo-deny is missing: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny check bans licenses sources
	@if cargo deny fetch db; then cargo deny check advisories; \
	else echo 'make lint: advisories NOT checked: their database is out of reach' >&2; fi

setup: ## the vendors' SDKs and whatever else the tests need
	@scripts/setup build
	@scripts/setup clients

bench: ## measure against the peers; fails when a ratio got more than 15 % worse
	@scripts/setup build
	@scripts/setup bench
	bench/run.sh

bench-accept: ## take the last measured ratios as the new baseline
	bench/run.sh --accept

profile: ## where the gateway's CPU goes under load (perf)
	@scripts/setup build
	@scripts/setup bench
	bench/run.sh --profile

clean: ## everything that was built or installed here
	$(CARGO) clean
	rm -rf .cache bench/target bench/results tests/clients/node_modules
