# Conventional names for what cargo and the scripts do. Nothing needs make.

CARGO ?= cargo
# For `make fuzz`: which target, and for how many seconds each.
TARGET ?= all
SECONDS ?= 60
# For `make stress`: how many commands.
COMMANDS ?= 50000
# For `make simulate`: how many seeds.
SEEDS ?= 20000

.PHONY: help all build release test check demo bench fmt lint doc fuzz simulate stress clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-9s %s\n", $$1, $$2 }'

all: build ## the same as build

build: ## build everything, dev profile
	$(CARGO) build --workspace --locked

release: ## build the capstan binary, optimised (about 20 minutes on two cores)
	$(CARGO) build --workspace --locked --release --bin capstan

test: ## install what the tests need, run everything
	scripts/test

check: ## the quick part: format, house, lint, tests of libraries and binaries
	scripts/test --quick

demo: ## see it work on this machine
	scripts/demo

bench: ## measure side by side with peers (CAPTURE=file; scripts/bench --help)
	scripts/bench

fmt: ## format the Rust code
	$(CARGO) fmt --all

lint: ## clippy, and the rules of the house
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	scripts/check-house
	scripts/check-house-test

doc: ## API documentation, into target/doc
	$(CARGO) doc --workspace --locked --no-deps

fuzz: ## fuzz (TARGET=name or all, SECONDS=60 each)
	scripts/fuzz "$(TARGET)" "$(SECONDS)"

simulate: ## recorders, rollups and readers over a bucket at its worst (SEEDS=20000)
	scripts/simulate "$(SEEDS)"

stress: ## many short commands under load: none may crash (COMMANDS=50000)
	scripts/stress "$(COMMANDS)"

clean: ## remove what was built
	$(CARGO) clean
