# One vocabulary of verbs for people, hooks and CI. `make help` lists it.
SHELL := bash
VENV := $(or $(CHORUS_VENV),.venv)
PYTEST := $(VENV)/bin/python -m pytest
# Three files at a time also on two cores: most tests wait for agents and containers. A file's tests share a mesh.
PYTEST_PARALLEL := $(PYTEST) -n 3 --dist loadfile
export CARGO_TARGET_DIR ?= $(or $(CHORUS_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/chorus)/target
# raft-rs generates its messages with protoc; without the system's, set-up puts one into the virtual environment.
export PATH := $(PATH):$(abspath $(VENV)/bin)
# The crate without Python: proves that the core does not know it. One profile, so that dependencies build once.
CARGO_FLAGS := --release --no-default-features
# Only the dependencies need to be fast in a test; this crate compiles four times sooner without optimisation.
CARGO_TEST_FLAGS := $(CARGO_FLAGS) --lib --config profile.release.package.chorus_core.opt-level=0

# Property tests of what reads bytes of peers.
PROPERTIES := any_bytes any_json any_head any_text mutated_messages parsing_never altered_records the_count_is

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-rust test-python test-fast test-heavy swarm-test lint types bench image wheel audit release clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## make this checkout ready (done by the others too)
	@scripts/setup.sh

demo: setup ## three agents run the test suites of three packages, and reach a goal
	@scripts/demo.sh

test: test-rust test-python ## all tests but the heavy ones

test-rust: setup ## the core's tests, without Python
	cargo test $(CARGO_TEST_FLAGS)

test-python: setup ## the processes' tests, with the built core and Docker
	$(PYTEST_PARALLEL)

test-fast: setup ## the tests that need no Docker and no second process
	$(PYTEST_PARALLEL) tests/unit tests/core

test-heavy: ## everything, with the tests that take minutes, and a real model where there is Go
	@scripts/setup.sh --heavy
	@if command -v go >/dev/null; then scripts/model.sh || echo "no real model: its tests are skipped" >&2; \
	else echo "Go is missing: the tests with a real model are skipped" >&2; fi
	deploy/sandbox/build.sh all
	CHORUS_HEAVY=1 $(PYTEST_PARALLEL)
	PROPTEST_CASES=100000 cargo test $(CARGO_TEST_FLAGS) -- $(PROPERTIES)

swarm-test: ## of the heavy tests those of deploy/swarm alone: a Swarm of four engines (as root)
	@scripts/setup.sh --heavy
	CHORUS_HEAVY=1 $(PYTEST) -v -s $(addprefix tests/deploy/test_,machines.py proxy_socket.py swarm_page.py swarm.py)

lint: setup ## ruff, rustfmt, clippy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --all-targets -- -D warnings
	PYO3_PYTHON=$(abspath $(VENV)/bin/python) cargo clippy --release -- -D warnings
	cargo clippy --release -p chorus-hostile -- -D warnings

types: setup ## mypy, and the core's stub against the built module
	$(VENV)/bin/mypy
	$(VENV)/bin/python -m mypy.stubtest chorus._core

bench: setup ## the measurements, each beside a peer in the same run
	@test -x bench/run || { echo "there are no measurements in this version yet" >&2; exit 1; }
	bench/run

image: setup ## the Docker images, chorus-agent:latest and chorus-docker-proxy:latest
	@scripts/image.sh

wheel: setup ## the wheel, into dist/
	@scripts/wheel.sh

audit: setup ## licences and sources of what is shipped, and known vulnerabilities where they can be asked for
	@scripts/audit.sh

release: setup ## wheel, images, bills of materials and checksums of this commit, into dist/
	@scripts/release.sh

clean: ## remove what was built here (not the shared build cache)
	rm -rf $(VENV) dist LICENSE.crates .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find python tests -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f python/chorus/_core*.so
