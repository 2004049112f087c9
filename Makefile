# Every target works from a fresh clone: what it needs is installed into .venv first, at the locked versions.
# To use another interpreter: make PYTHON=python3.13 test
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DATA   ?= halyard-data
# Without its cache of compiled tests, pytest rewrites every assertion anew in each worker.
unexport PYTHONDONTWRITEBYTECODE
# Two workers: the tests of one process leave a core idle, and each worker pays for its imports.
PARALLEL := -n 2 --dist worksteal

.PHONY: run test test-unit test-authority test-system lint format coverage prove bench faults lock config clean help
.DEFAULT_GOAL := help

help:           ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.upstream ## start upstream and relay with a demo project
	@exec $(BIN)/halyard up --data-dir $(DATA) --demo

test: test-unit test-authority test-system ## run every test

test-unit: $(VENV)/.dev ## engine, protocol and relay in process
	$(BIN)/python -m pytest $(PARALLEL) -m "not timed" tests/engine tests/protocol tests/relay

test-authority: $(VENV)/.dev ## commands, storage and API in process, on SQLite and on PostgreSQL; the command line
	HALYARD_TEST_DATABASE=sqlite $(BIN)/python -m pytest $(PARALLEL) tests/upstream
	$(BIN)/python -m pytest $(PARALLEL) -m "not system" tests/console
	HALYARD_TEST_DATABASE=postgresql $(BIN)/python -m pytest $(PARALLEL) tests/upstream

test-system: $(VENV)/.dev $(VENV)/.node ## real services and published clients, and what measures time
	$(BIN)/python -m pytest -m "system or timed"

lint: $(VENV)/.dev ## style, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff put the code into form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

coverage: $(VENV)/.dev ## branch coverage of the fast part, with its floors
	$(BIN)/coverage run -m pytest -q -m "not system and not timed"
	$(BIN)/coverage report --include='relay/engine/*,relay/protocol/*,upstream/domain/*' --fail-under=100
	$(BIN)/coverage report

prove: $(VENV)/.dev ## property tests and fuzzing at heavy counts
	HYPOTHESIS_PROFILE=prove $(BIN)/python -m pytest $(PARALLEL) -m "not system and not timed" tests/engine tests/protocol tests/relay tests/upstream

bench: $(VENV)/.dev ## figures of this machine, as ratios to a reference in the same run (BENCH="--only fanout --keep")
	$(BIN)/python -m tests.bench $(BENCH)

faults: $(VENV)/.dev ## kill, cut and restart real services
	$(BIN)/python -m pytest -m system tests/faults

lock: $(VENV)/.dev ## write requirements/ from pyproject.toml (UPGRADE=--upgrade for newer versions)
	$(BIN)/pip -q install uv
	$(BIN)/uv pip compile pyproject.toml --extra upstream --extra otel --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate -q $(UPGRADE) -o requirements/dev.txt
	$(BIN)/uv pip compile pyproject.toml --extra upstream --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate -q -c requirements/dev.txt -o requirements/upstream.txt
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate -q -c requirements/dev.txt -o requirements/relay.txt
	$(BIN)/uv pip compile pyproject.toml --extra otel --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate -q -c requirements/dev.txt -o requirements/relay-otel.txt

config: $(VENV)/.upstream ## write config.example.toml from the settings
	$(BIN)/halyard config example > config.example.toml

clean:          ## remove the virtual environment and caches (never data)
	rm -rf $(VENV) tests/clients/node/*/node_modules build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .import_linter_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Halyard needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V). Use: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp per set of dependencies; the larger set contains the smaller.
$(VENV)/.upstream: $(BIN)/python pyproject.toml requirements/upstream.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/upstream.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml requirements/dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $(VENV)/.upstream $@

# The published JavaScript clients, each in a project of its own: what they depend on clashes.
NODE_PROJECTS := $(patsubst %/package-lock.json,%,$(wildcard tests/clients/node/*/package-lock.json))
$(VENV)/.node: $(addsuffix /package-lock.json,$(NODE_PROJECTS))
	@if command -v npm >/dev/null; then \
	  for each in $(NODE_PROJECTS); do (cd $$each && npm ci --silent --no-audit --no-fund) || exit 1; done; touch $@; \
	else echo "npm is not on this machine: the tests of the JavaScript clients are skipped"; fi
