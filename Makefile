# What there is to do in this repository; `make` lists it. Each target sets up what it needs by itself.

PYTHON ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test servers quick check format torture bench bench-peers docs clean

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/installed ## Show penstock at work
	@echo "running the demo ..."
	@$(BIN)/penstock demo

test: check servers ## Run everything but the torture tests
	@echo "running the quick tests, three at a time ..."
	@$(PYTEST) -m "not slow and not torture" -n 3 --junitxml=build/quick.xml
	@echo "running the slow tests that bear company, three at a time ..."
	@$(PYTEST) -m "slow and not lonely and not torture" -n 3 --maxschedchunk 1 --junitxml=build/slow.xml
	@echo "running those that mind the time, one at a time ..."
	@$(PYTEST) -m "lonely and not torture" --junitxml=build/lonely.xml
	@echo "checked formatting, lint and types; ran the quick and the slow tests:"
	@$(BIN)/python tools/sum_reports.py build/quick.xml build/slow.xml build/lonely.xml

servers: ## Find or install the servers and programs that the tests start
	@tools/find-servers

quick: .venv/installed servers ## Run the tests that need no patience
	@echo "running the quick tests, three at a time ..."
	@$(PYTEST) -m "not slow and not torture" -n 3

check: .venv/installed ## Check lint, formatting and types
	@echo "checking lint, formatting and types ..."
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy src/penstock $(wildcard tests/typing/*.py)

format: .venv/installed ## Format the code and mend what ruff can mend
	@echo "formatting ..."
	@$(BIN)/python -m ruff check --fix-only .
	@$(BIN)/python -m ruff format .

torture: .venv/installed servers ## Run the tests that kill, freeze and starve workers
	@echo "running the torture tests ..."
	@$(PYTEST) -m torture -s

bench: .venv/installed ## Run the benchmarks
	@echo "running the benchmarks ..."
	@$(BIN)/python -m benchmarks

bench-peers: .venv/installed servers ## Measure penstock beside other queues; installs those below build/peers
	@echo "running the benchmarks beside other queues, about an hour ..."
	@$(BIN)/python -m benchmarks.peers

docs: .venv/installed ## Run every example and command in the documents
	@echo "running the examples of the documents ..."
	@$(PYTEST) tests/docs

clean: ## Delete what these targets made
	@echo "deleting .venv, build, dist and the caches ..."
	@rm -rf .venv build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The scripts in an environment hold its path, and its Python may be gone: make it anew when it was moved or is broken.
ifneq ($(shell .venv/bin/python -c '' 2>/dev/null && cat .venv/made 2>/dev/null),$(CURDIR))
.PHONY: .venv/made
endif

.venv/made:
	@PYTHON='$(PYTHON)' tools/make-venv .venv
	@echo '$(CURDIR)' > $@

.venv/installed: .venv/made pyproject.toml constraints.txt
	@echo "installing penstock and its tools into .venv ..."
	@$(PIP) -e '.[dev,bench]' -c constraints.txt
	@touch $@
