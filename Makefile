# What contributors run; CONTRIBUTING.md describes the targets. PYTHON=python3.12 chooses another Python.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install lint types docs test test-fast
.NOTPARALLEL:

install:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --require-hashes -r installer.lock
	$(BIN)/uv pip install --compile-bytecode --require-hashes -r requirements.lock
	$(BIN)/uv pip install --no-deps --no-build-isolation -e .

lint:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types:
	$(BIN)/mypy

docs:
	$(BIN)/mkdocs build --strict

test:
	$(BIN)/pytest

test-fast:
	$(BIN)/pytest -m "not ray and not browser and not slow"
