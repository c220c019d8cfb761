# Everything a contributor runs. `make` lists the targets; nothing needs to be installed first but Python 3.11 or newer.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPAT := tests/compat
COMPAT_INSTALLED := $(if $(wildcard $(COMPAT)/package.json),$(COMPAT)/node_modules/.installed)
COMPAT_LOCK := $(wildcard $(COMPAT)/package-lock.json)
CHROMIUM_NAMES := chromium chromium-browser google-chrome google-chrome-stable

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(INSTALLED) ## Run the server, the dashboard and every example with traffic; ONCE=1 stops after one round
	$(BIN)/python -m examples.demo $(if $(ONCE),--once,)

.PHONY: test
test: check chromium $(COMPAT_INSTALLED) ## Check, then run every test but the long ones
	$(BIN)/python -m pytest -m "not long" -n $(WORKERS) --dist worksteal

.PHONY: test-fast
test-fast: $(INSTALLED) ## Run the tests that need no browser and no patience; under a minute
	$(BIN)/python -m pytest -m "not slow and not long and not browser" -n $(WORKERS)

.PHONY: test-long
test-long: $(INSTALLED) ## Run the soak tests and the many seeds
	$(BIN)/python -m pytest -m long

.PHONY: test-postgres
test-postgres: $(INSTALLED) ## Run what can run on any store on PostgreSQL, and several nodes on it
	$(BIN)/python -m pytest --store postgres -n $(WORKERS) tests/store tests/engine tests/testing tests/cluster

.PHONY: check
check: $(INSTALLED) ## Lint, types and layers
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy
	$(BIN)/python -m pytest -q tests/layers

.PHONY: bench
bench: $(INSTALLED) ## Measure; options go in ARGS
	$(BIN)/python -m bench $(ARGS)

.PHONY: clean
clean: ## Remove what these targets have made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis $(COMPAT)/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -- what the targets stand on ---------------------------------------------------------------------------------------

$(INSTALLED): pyproject.toml
	@command -v $(PYTHON) > /dev/null && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is not Python 3.11 or newer. Name one that is: make PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@

.PHONY: chromium
chromium:
	@found() { for name in $(CHROMIUM_NAMES); do command -v "$$name" > /dev/null && return 0; done; return 1; }; \
	if found; then exit 0; fi; \
	if ! command -v apt-get > /dev/null; then \
		echo "The browser tests need Chromium. Install it so that one of these is on PATH: $(CHROMIUM_NAMES)" >&2; exit 1; \
	fi; \
	if [ "$$(id -u)" != 0 ]; then \
		echo "The browser tests need Chromium. Run: sudo apt-get install --yes chromium" >&2; exit 1; \
	fi; \
	apt-get update --quiet && apt-get install --yes --quiet --no-install-recommends chromium; \
	found || { echo "apt-get installed chromium, but none of these is on PATH: $(CHROMIUM_NAMES)" >&2; exit 1; }

$(COMPAT)/node_modules/.installed: $(COMPAT)/package.json $(COMPAT_LOCK)
	@command -v npm > /dev/null || \
		{ echo "The compatibility tests need npm. Install Node.js 20 or newer: https://nodejs.org/en/download" >&2; exit 1; }
	cd $(COMPAT) && npm $(if $(COMPAT_LOCK),ci,install) --no-audit --no-fund
	mkdir -p $(@D)
	touch $@
