# The commands of the project. Each sets the machine up first, which takes no time where that is done already.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench

ENV := . scripts/env.sh &&

# A shell word that holds any path. $(call quote,text)
quote = '$(subst ','\'',$(1))'
ARGS ?=

help:
	@echo 'make demo    run the word count on a broker of its own, in one process'
	@echo '               INPUT=path           count a text of yours ("-" is the standard input)'
	@echo '               BOOTSTRAP=host:port  on a Kafka that runs already; start it as often as you like'
	@echo '               ARGS="..."           more arguments; ARGS=--help lists them'
	@echo 'make test    run all tests, also those on a real Kafka, which is fetched and started'
	@echo '               KAFKA_BOOTSTRAP_SERVERS=host:port  on a Kafka that runs already'
	@echo 'make lint    format, clippy, documentation, licences; warnings are errors'
	@echo 'make bench   measure the engine beside raw client loops on one broker; ARGS="..." as above'

demo:
	@scripts/setup.sh build
	@$(ENV) cargo run --package headwater-examples --bin word-count -- \
		$(if $(INPUT),--input $(call quote,$(INPUT))) $(if $(BOOTSTRAP),--bootstrap $(call quote,$(BOOTSTRAP))) $(ARGS)

# The programs come first: tests start them as processes. The tests under tests/ of a package start brokers and
# processes of their own and run one at a time, by .config/nextest.toml where nextest is present.
test:
	@scripts/setup.sh test
	$(ENV) cargo build --workspace --bins
	$(ENV) if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace && cargo test --workspace --doc; \
	else \
		cargo test --workspace -- --test-threads=1; \
	fi

lint:
	@scripts/setup.sh lint
	$(ENV) cargo fmt --all --check
	$(ENV) cargo clippy --workspace --all-targets -- -D warnings
	$(ENV) cargo clippy --package headwater --package headwater-changelog --no-default-features --all-targets -- -D warnings
	$(ENV) RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps
	$(ENV) scripts/deny.sh

bench:
	@scripts/setup.sh test
	$(ENV) cargo run --release --package headwater-bench --bin supervise -- $(ARGS)
