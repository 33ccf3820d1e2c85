# Each target does its own set-up in .venv; all it needs is Python 3.11 or newer and make.
PYTHON ?= python3
BIN := .venv/bin
BENCH ?=

.PHONY: help demo test check lint types layers bench bench-quick clean

help:
	@echo "make demo         real processes form a group and exchange objects"
	@echo "make test         all tests"
	@echo "make check        ruff, mypy --strict, import-linter, all tests"
	@echo "make bench        against vLLM's group and torch's TCPStore (fetches both, once)"
	@echo "make bench-quick  the same, shorter"
	@echo "make clean        remove what the other targets made"

.venv/.ready: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: .venv/.ready
	$(BIN)/aiopg demo

test: .venv/.ready
	$(BIN)/python -X dev -m pytest

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ready
	$(BIN)/mypy

layers: .venv/.ready
	$(BIN)/lint-imports

check: lint types layers test

bench: .venv/.ready
	$(BIN)/python -m benchmarks $(BENCH)

bench-quick: BENCH = --quick
bench-quick: bench

clean:
	rm -rf .venv benchmarks/.peers .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
