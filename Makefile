# Everything a person or a machine runs here. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

#: The interpreter that .venv is made with: Python 3.11 or later.
PYTHON ?= python3
#: More words for pytest: make test TESTS="tests/unit -k plan"
TESTS ?=
#: Tests run at once. Many of them wait, for workers that start and leases that end: two cores are well used by three.
JOBS ?= 3
#: For `make mutants`: which sample, how many mutants, and of which modules (all that tests/mutants.py lists, without any).
SEED ?= 1
COUNT ?= 60
MODULES ?=
#: Percent of the mutants that the tests must notice.
THRESHOLD ?= 90

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo test test-long mutants check fmt bench clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with all that the other targets need

demo: $(STAMP) ## Render examples/mustache.yaml on this machine, with nothing else running
	@$(BIN)/printroom render examples/mustache.yaml --out prints/mustache

test: $(STAMP) ## Run the tests
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal $(TESTS)

test-long: $(STAMP) ## Run the tests with all seeds, examples and mixes of those that make do with a sample
	@$(BIN)/python -m pytest --long --numprocesses $(JOBS) --dist worksteal $(TESTS)

mutants: $(STAMP) ## Change one small thing at a time and list the changes that no test notices: SEED=1 COUNT=60
	@$(BIN)/python tests/mutants.py --seed $(SEED) --count $(COUNT) --threshold $(THRESHOLD) $(MODULES)

check: $(STAMP) ## Check format, lint, types, imports, documentation links, compose file and Dockerfiles
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/check_links.py
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(BIN)/hadolint docker/Dockerfile.producer docker/Dockerfile.worker

fmt: $(STAMP) ## Format the code and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## Run the benchmarks, one after another
	@for script in benchmarks/[a-z]*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

clean: ## Remove .venv and the tools' caches; prints/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .mutants build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Redone only when what is installed changes. pip says nothing but its errors.
$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null \
	  || { echo "Printroom needs Python 3.11 or later; there is no '$(PYTHON)' here. Try: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Printroom needs Python 3.11 or later; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.11" >&2; exit 1; }
	@echo "Setting up $(VENV) (minutes the first time, torch is large) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[worker,jxl,local,test,check]'
	@touch $@
