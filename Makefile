# `make up` and `make test` work on a fresh clone with python3 (3.11+), python3-venv, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.8
WORKERS ?= 2
# Where this is set, as in images of containers, each process compiles every source anew: 4 s of CPU for each server of a test.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help up test coverage lint format bench slow e2e docs setup clean testbed testbed-down testbed-test testbed-smoke evidence
.DEFAULT_GOAL := help

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.synced ## the virtual environment, exactly as uv.lock says

$(VENV)/.synced: pyproject.toml uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet uv==$(UV_VERSION)
	@echo "installing what uv.lock pins ..."
	@VIRTUAL_ENV= $(BIN)/uv sync --frozen --quiet --compile-bytecode
	@touch $@

up: setup ## start everything embedded: server, NATS, SQLite, the lab
	@$(BIN)/homeostat up

# make test WORKERS=1: in one process. A file stays with one worker, so that what its tests share is made once; in the order of
# tests/conftest.py, which puts the folders with long files first. What is missing here (PostgreSQL, a browser, root ...) is left
# out, and the last lines say how to get it; REQUIRE_ENGINES=all makes it fail. One test alone: .venv/bin/pytest FILE.
PYTEST_WORKERS := $(if $(filter-out 1,$(WORKERS)),-n $(WORKERS) --dist loadfile --no-loadscope-reorder)

test: setup ## all tests but the slow ones
	$(BIN)/pytest -m "not slow and not openstack" $(PYTEST_WORKERS)

coverage: setup ## the same tests, and how much of the code they ran, also in the processes they start (twice as long)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow and not openstack" $(PYTEST_WORKERS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

slow: setup ## long kills and crashes, more variants of what is tested, 2260 simulated seeds
	$(BIN)/pytest -m "slow and not openstack" -s

B ?= told
bench: setup ## one benchmark beside its peer: make bench B=told, QUICK=1 for a short one
	$(BIN)/python bench/$(B).py

e2e: setup ## only the tests on a running lab
	$(BIN)/pytest tests/e2e -m "not slow"

testbed: setup ## a real OpenStack with two controllers on this machine (root; docs/testbed.md)
	$(BIN)/python -m testbed up

testbed-down: setup ## end it; only its cache stays
	$(BIN)/python -m testbed down

testbed-test: setup ## start it, kill its start half-way, compare the machine before and after (root, minutes)
	$(BIN)/pytest -m openstack -s tests/testbed

# From whatever the cache has, at the latest after 25 minutes. `down` also ends what a killed smoke test left.
testbed-smoke: setup ## bring it up, kill keystone on one controller, want PASS, take it down (root, <= 25 minutes)
	@timeout --signal=INT --kill-after=120 1380 $(BIN)/python -m testbed smoke; said=$$?; \
	$(BIN)/python -m testbed down && exit $$said

evidence: setup ## the eight OPNFV cases on each variant of the testbed, three times each; goes on where it was ended (root, hours)
	$(BIN)/python -m testbed evidence

docs: setup ## the pages that are made from the code
	$(BIN)/python docs/make_architecture.py
	$(BIN)/python docs/make_configuration.py
	$(BIN)/python docs/make_texts.py
	$(BIN)/python docs/make_drill_schema.py
	$(BIN)/python docs/make_traceability.py
	$(BIN)/python docs/make_benchmarks.py

lint: setup ## types, layers, format
	$(BIN)/ruff format --check src tests docs bench testbed
	$(BIN)/ruff check src tests docs bench testbed
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: setup ## put the code in shape
	$(BIN)/ruff format src tests docs bench testbed
	$(BIN)/ruff check --fix src tests docs bench testbed

clean: ## remove the environment and what tools left
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.*
