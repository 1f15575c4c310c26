# Every target sets up what it needs: an environment in $(VENV), made once and again when
# pyproject.toml changes. Other Python or place: make test PYTHON=python3.12 VENV=/tmp/venv
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
# Tests use one torch thread each, so two processes keep two cores busy: make test WORKERS=8
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
# Continuous integration (.ci/run sets CI) also measures coverage, which takes a third longer.
COVERAGE := $(if $(CI),--cov --cov-report= --cov-fail-under=0)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test slow-ci slow lint docs bench

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(STAMPS)/train ## attach exits to the shipped backbone, train, compare: runs/demo
	$(BIN)/offramp demo --out runs/demo

test: $(STAMPS)/dev ## the default tests
	$(PYTEST) $(COVERAGE)

slow-ci: $(STAMPS)/dev ## the slow tests that continuous integration runs; there the coverage of both
	$(PYTEST) -m 'slow and not gpu and not network' $(COVERAGE) $(if $(CI),--cov-append)
	$(if $(CI),$(BIN)/python -m coverage report --skip-covered)

slow: $(STAMPS)/dev ## every slow test this machine can run, downloads included
	$(BIN)/python -m pytest -m 'slow or gpu or network'

lint: $(STAMPS)/dev ## format, lint, types and layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMPS)/docs ## the documentation site: site/index.html
	$(BIN)/mkdocs build --strict

bench: demo $(STAMPS)/bench ## all benchmarks, about an hour: speed, kept promises, drift
	$(BIN)/python benchmarks/cut.py
	$(BIN)/python benchmarks/extraction.py
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/policies.py --run runs/demo
	$(BIN)/python benchmarks/drift.py
	$(BIN)/python benchmarks/stages.py
	$(BIN)/python benchmarks/runtime.py

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "offramp needs Python 3.11 or newer; name one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# pip shows its progress on a terminal and is quiet in a log.
define install
	@echo "Installing offramp[$(EXTRAS)] into $(VENV); the first time this takes some minutes."
	@$(BIN)/python -m pip install $$([ -t 1 ] || echo --quiet) --editable '.[$(EXTRAS)]'
	@mkdir -p $(STAMPS) && touch $@
endef

$(STAMPS)/train: EXTRAS = train,export
$(STAMPS)/dev: EXTRAS = train,export,dev
$(STAMPS)/docs: EXTRAS = docs
$(STAMPS)/bench: EXTRAS = train,export,openvino,bench
$(STAMPS)/train $(STAMPS)/dev $(STAMPS)/docs $(STAMPS)/bench: pyproject.toml | $(BIN)/python
	$(install)
