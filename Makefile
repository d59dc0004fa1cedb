# What people type. `make help` lists it.

export PATH := $(HOME)/.cargo/bin:$(PATH)
CARAWAY_CACHE ?= $(HOME)/.cache/caraway
export CARAWAY_CACHE
CARGO ?= cargo
# Where cargo puts what it builds: the tests start the program from there.
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
export CARAWAY_BIN ?= $(TARGET_DIR)/release/caraway
DENY = $(or $(shell command -v cargo-deny),$(CARAWAY_CACHE)/cargo-deny-0.20.2/bin/cargo-deny)

ifneq ($(shell $(CARGO) nextest --version 2>/dev/null),)
# Of the whole workspace both: with the features of a part of it, crates would be built twice.
RUN_TESTS = $(CARGO) nextest run --no-fail-fast --workspace
OF_UNITS = -E 'not package(caraway-tests)'
OF_E2E = -E 'package(caraway-tests)'
else
RUN_TESTS = $(CARGO) test --no-fail-fast
OF_UNITS = --workspace --exclude caraway-tests
OF_E2E = -p caraway-tests
endif

.PHONY: help build demo test unit e2e lab fuzz soak bench check generate fmt clippy doc deny install-build install-test

help: ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## the caraway program, optimised
	$(CARGO) build --release -p caraway

demo: install-build build ## boot the built-in guest on a SPICE display
	$(CARAWAY_BIN) demo

# The lab's guests leave some of the processors, which fuzzing takes.
test: install-test build unit e2e ## everything that shows that Caraway works
	$(MAKE) -j 2 --output-sync=target lab fuzz

unit: ## tests that need no KVM
	$(RUN_TESTS) $(OF_UNITS)
	$(CARGO) test -q --doc --workspace

e2e: build ## the program on /dev/kvm, with tiny guests and foreign SPICE clients
	$(RUN_TESTS) $(OF_E2E)

lab: build ## a stock Debian 12 under a nested KVM
	tests/lab/run $(JOBS)

fuzz: install-test ## every fuzz target for a minute, or FUZZ_SECONDS
	CARGO_TARGET_DIR=$(TARGET_DIR) nice -n 19 tests/fuzz/run

soak: build install-test ## each flood of clients for a minute, with what was measured
	CARAWAY_SOAK=1 $(CARGO) test -p caraway-tests --test e2e floods:: -- --test-threads=1 --nocapture

bench: install-test ## figures as shipped, next to QEMU's; SECTIONS="startup slow-link lan" chooses
	$(CARGO) build --profile dist -p caraway
	$(if $(filter replay,$(or $(SECTIONS),replay)),$(CARGO) build --profile dist -p caraway-qxl --example replay)
	$(CARGO) build -p caraway-tests --bins
	$(if $(SECTIONS),,$(CARGO) bench -p caraway-spice --bench codecs)
	$(if $(SECTIONS),,$(CARGO) test --release -p caraway-video --all-features weigh -- --ignored --nocapture)
	CARAWAY_BIN=$(TARGET_DIR)/dist/caraway $(TARGET_DIR)/debug/bench $(SECTIONS)

check: fmt clippy doc deny ## everything .ci/run asks before it tests

generate: ## resources/ anew, after a change of the config or the API
	CARAWAY_REGENERATE=1 $(CARGO) test -q -p caraway --test generated

fmt:
	$(CARGO) fmt --all -- --check
	$(CARGO) fmt --manifest-path tests/guests/bare/Cargo.toml -- --check
	$(CARGO) fmt --manifest-path tests/fuzz/Cargo.toml -- --check

clippy:
	$(CARGO) clippy -q --workspace --all-targets -- -D warnings
	$(CARGO) clippy -q --manifest-path tests/guests/bare/Cargo.toml --release --target-dir $(TARGET_DIR)/bare -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc -q --workspace --no-deps

# Whether a dependency has a known flaw is asked of a database on the network: said when it is out of reach, not failed.
deny: install-test
	@$(DENY) --log-level error check licenses bans sources
	@if $(DENY) --log-level error fetch db >/dev/null 2>&1; then \
	  $(DENY) --log-level error check --disable-fetch advisories; \
	else \
	  echo "deny: the advisory database is out of reach; advisories were NOT checked"; \
	fi

install-build:
	@tests/scripts/install.sh build

install-test:
	@tests/scripts/install.sh test
