# Each target does its own set-up in .venv; all it needs is Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
BENCH ?=
LOGIC := tests/core tests/codec tests/fuzz tests/simulation tests/stores
SCREENS := tests/screens
VLLM := benchmarks/.peers/vllm-0.33.0

.PHONY: help demo test test-logic test-world test-screens test-tls test-over-tls test-over-mutual-tls check lint types layers docs
.PHONY: bench bench-quick bench-page bench-strangers bench-large bench-scale simulate chaos crash fuzz clean

help:
	@echo "make demo         real processes form a group and exchange objects"
	@echo "make test         all tests"
	@echo "make test-screens what is seen in a browser and in a terminal (needs chromium and tmux)"
	@echo "make test-tls     the tests of many processes once more, over mutual TLS, and a part of them over TLS"
	@echo "make check        ruff, mypy --strict, import-linter, all tests, test-screens, test-tls"
	@echo "make docs         the documentation as a site in build/docs, warnings as errors"
	@echo "make simulate     50,000 seeds of the simulator (SEEDS=A-B for others)"
	@echo "make chaos        1,000 broken connections under load; the long tests of liveness"
	@echo "make crash        a store with a journal killed 100 times under load, in each mode"
	@echo "make fuzz         10,000,000 inputs for what reads what strangers wrote (INPUTS=N)"
	@echo "make bench        beside vLLM, torch, MPI, Redis and a floor in C (fetches what it can, once)"
	@echo "make bench-quick  the same, in under three minutes"
	@echo "make bench-page   make bench, and docs/benchmarks.md of it"
	@echo "make bench-strangers  a group beside 1,100 connections that never log in"
	@echo "make bench-large  objects of 1 to 256 MiB: bytes a second, event loops that stand still, a group beside"
	@echo "make bench-scale  a store and 100 to 10,000 ranks: times, processor time and memory of the store"
	@echo "make clean        remove what the other targets made"

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/.ready
	$(BIN)/aiopg demo

# Two halves at once: one computes, one mostly waits for processes and sockets, and goes first where both want to run.
test: .venv/.ready $(VLLM)
	@mkdir -p build
	$(MAKE) --jobs=2 test-logic test-world

test-logic: .venv/.ready
	nice $(BIN)/python -X dev -m pytest $(LOGIC) > build/test-logic.txt 2>&1; ended=$$?; cat build/test-logic.txt; exit $$ended

test-world: .venv/.ready $(VLLM)
	$(BIN)/python -X dev -m pytest $(LOGIC:%=--ignore=%) $(SCREENS:%=--ignore=%)

# Apart, as a browser is no Python package: whoever has none runs the other tests all the same.
test-screens: .venv/.ready
	$(BIN)/python -X dev -m pytest $(SCREENS)

# The Python files of vLLM, with which its users' programs are tested: the wheel has 340 MB and is fetched once.
$(VLLM): .venv/.ready
	$(BIN)/python -c "from benchmarks import peers; peers.fetch({'vllm'})"

# AIOPG_TLS_* and AIOPG_TOKEN are all that differs: neither the tests nor their programs know of them. Unix sockets have no
# TLS. One run behind the other: two stores under full load on two processors leave nothing to the processes that make
# their snapshots. What OpenSSL keeps for a connection (some 80 KiB) is no part of what a rank is promised to cost.
test-tls: .venv/.ready
	rm -rf .tls
	$(BIN)/aiopg certs .tls
	$(MAKE) test-over-tls test-over-mutual-tls

test-over-tls test-over-mutual-tls: export AIOPG_TLS_CERT = $(CURDIR)/.tls/store.pem
test-over-tls test-over-mutual-tls: export AIOPG_TLS_KEY = $(CURDIR)/.tls/store.key
test-over-tls test-over-mutual-tls: export AIOPG_TLS_CA = $(CURDIR)/.tls/ca.pem
# All of them with certificates at both ends and a token; with the store's certificate alone, those in which members come and go.
test-over-mutual-tls: OVER_TLS = tests/system tests/test_processes.py
test-over-tls: OVER_TLS = tests/system/test_death.py tests/system/test_encryption.py tests/system/test_hosting.py tests/test_processes.py
test-over-tls: export AIOPG_TLS_MUTUAL = 0
test-over-mutual-tls: export AIOPG_TLS_MUTUAL = 1
test-over-mutual-tls: export AIOPG_TOKEN = a token of these tests alone
test-over-tls test-over-mutual-tls:
	$(BIN)/python -X dev -m pytest $(OVER_TLS) -k "not unix and not costs_a_store_little"

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ready
	$(BIN)/mypy

layers: .venv/.ready
	$(BIN)/lint-imports

check: lint types layers test test-screens test-tls

.venv/.docs: .venv/.ready
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	touch $@

docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

simulate: .venv/.ready
	$(BIN)/python -m tests.simulation.run --seeds $(or $(SEEDS),1-50000) --jobs 2

chaos: .venv/.ready
	AIOPG_TEST_LONG=1 AIOPG_CHAOS_CUTS=1000 $(BIN)/python -X dev -m pytest -s tests/system/test_chaos.py \
	    tests/system/test_blocked.py tests/system/test_half_open.py

fuzz: .venv/.ready
	$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),10000000) --jobs 2

crash: .venv/.ready
	AIOPG_CRASHES=100 $(BIN)/python -m pytest -s tests/system/test_restart.py

bench: .venv/.ready
	$(BIN)/python -m benchmarks $(BENCH)

bench-quick: BENCH = --quick
bench-quick: bench

bench-page: bench
	$(BIN)/python -m benchmarks.page "$$(ls -t benchmarks/results/*.json | head -1)"

bench-strangers: .venv/.ready
	$(BIN)/python -m benchmarks.strangers

bench-large: .venv/.ready
	$(BIN)/python -m benchmarks.large $(BENCH)

bench-scale: .venv/.ready
	$(BIN)/python -m benchmarks.scale

clean:
	rm -rf .venv build benchmarks/.peers .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .fuzz .tls
