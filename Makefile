# What one types here. `make demo` and `make test` are all that a fresh machine with Rust and Node needs.
.DEFAULT_GOAL := help
.PHONY: help demo test check lint setup bench bench-accept bench-build profile fuzz clean

CARGO ?= cargo
# Whatever is built is what the lock file says.
LOCKED := --locked
# What `make bench` and `make profile` build and measure, and how often.
export PROFILE ?= release
RUNS ?= 2

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: ## build and start the gateway with its mock LLM; FLAGS=... are passed on
	@scripts/setup build
	$(CARGO) build $(LOCKED) --profile quick --package tollgate
	@exec target/quick/tollgate demo $(FLAGS)

test: setup check ## every check and every test
	.cache/clients/python/bin/python -m unittest discover -s bench
	$(CARGO) test $(LOCKED) --manifest-path bench/Cargo.toml --package bench-load
	$(CARGO) build $(LOCKED) --workspace --all-targets
	$(CARGO) test $(LOCKED) --workspace --no-fail-fast

check: ## formatting, the project's own checks, clippy
	@scripts/setup build
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path bench/Cargo.toml --all --check
	$(CARGO) fmt --manifest-path tests/wasm/suite/rust/Cargo.toml --all --check
	$(CARGO) xtask check
	$(CARGO) clippy $(LOCKED) --workspace --all-targets -- --deny warnings

lint: check ## the above, and licences, sources and advisories of all dependencies (cargo-deny)
	@command -v cargo-deny >/dev/null || { echo 'make lint: cargo-deny is missing: cargo install --locked cargo-deny' >&2; exit 1; }
	cargo deny check bans licenses sources
	@if cargo deny fetch db; then cargo deny check advisories; \
	else echo 'make lint: advisories NOT checked: their database is out of reach' >&2; fi

setup: ## the vendors' SDKs, compiled plugins and whatever else the tests need
	@scripts/setup build
	@scripts/setup clients
	@scripts/setup wasm

bench: bench-build ## measure beside the peers; fails when a figure got more than 15 % worse
	python3 bench/bench.py --runs $(RUNS)
	@python3 bench/report.py

bench-accept: ## take the figures measured last as the new baseline
	@python3 bench/report.py --accept

profile: bench-build ## where the gateway's CPU goes under load (perf); PROFILE=quick shows symbols
	@python3 bench/prof.py

bench-build:
	@scripts/setup build
	@scripts/setup bench
	$(CARGO) build $(LOCKED) --profile $(PROFILE) --package tollgate
	$(CARGO) build $(LOCKED) --release --manifest-path bench/Cargo.toml

# Coverage is told to libFuzzer by the compiler; build scripts run without it, hence the target.
SANCOV := -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
	-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
HOST = $(shell rustc --print host-tuple)
fuzz: ## look for new inputs of one target: TARGET=event_stream SECONDS=60 (fuzz/src/lib.rs lists them)
	@scripts/setup build
	RUSTFLAGS="$(SANCOV)" $(CARGO) build --release --target $(HOST) --manifest-path fuzz/libfuzzer/Cargo.toml
	@mkdir -p fuzz/found/$(TARGET)
	TARGET=$(TARGET) fuzz/libfuzzer/target/$(HOST)/release/tollgate-libfuzzer -max_total_time=$(or $(SECONDS),60) -timeout=5 \
		-rss_limit_mb=2048 -artifact_prefix=fuzz/found/$(TARGET)/ fuzz/found/$(TARGET) fuzz/corpus/$(TARGET)

clean: ## everything that was built or installed here
	$(CARGO) clean
	rm -rf .cache bench/target bench/results tests/clients/node_modules
