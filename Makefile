# Needs Python 3.11 or newer, and make. Nothing is downloaded but the pinned packages of requirements.lock.

BIN := .venv/bin
READY := .venv/.installed
# Fixed, not taken from the environment: these targets must not touch another project's home.
export DAGSTER_HOME := $(CURDIR)/.dagster_home
# Without bytecode on disk, every process that the targets and the tests start compiles the whole package.
unexport PYTHONDONTWRITEBYTECODE
SETTINGS := $(DAGSTER_HOME)/dagster.yaml
# Many tests wait for something: more workers than two cores have, and the slowest tests told. Some share what one worker
# makes (xdist_group).
WORKERS := -n 4 --dist loadgroup --durations 20
# What kills processes or drives a browser runs alone, for it goes by the clock.
ALONE := integrations_dagster_tests/kills integrations_dagster_tests/live

.DEFAULT_GOAL := help
.PHONY: help demo ui warehouse test test-slow test-servers check lock clean

help:
	@echo "make demo          the sample warehouse into the sandbox, through Dagster, twice"
	@echo "make ui            the Dagster UI with the sandbox beside it"
	@echo "make warehouse     the sample warehouse only"
	@echo "make test          the tests"
	@echo "make test-slow     kills, long runs, all cases, the browser"
	@echo "make test-servers  tests with real servers, which it installs into .servers"
	@echo "make check         format, lint, types, tests"
	@echo "make lock          pin the dependencies anew"
	@echo "make clean         remove .venv and caches; state and warehouse stay"

demo: $(READY) $(SETTINGS)
	@$(BIN)/integrations demo

ui: $(READY) $(SETTINGS) warehouse.duckdb
	@$(BIN)/integrations ui

warehouse: $(READY)
	@$(BIN)/integrations warehouse

warehouse.duckdb: | $(READY)
	@$(BIN)/integrations warehouse

test: $(READY)
	$(BIN)/python -m pytest $(WORKERS)

# The browser is for the tests of the UI; without one they skip, and say so.
test-slow: $(READY)
	@if command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null; \
	then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		(apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium) \
			|| echo "No chromium: the tests that need it are skipped."; \
	else echo "No chromium, and no right to install it: the tests that need it are skipped."; fi
	$(BIN)/python -m pytest -m slow -n 3 --dist loadgroup --durations 20 $(ALONE:%=--ignore=%)
	$(BIN)/python -m pytest -m slow --durations 20 $(ALONE)

# What cannot be installed is said, and its tests skip with that reason.
test-servers: $(READY)
	@$(BIN)/python -m integrations_dagster_tests.servers.install
	$(BIN)/python -m pytest -m servers

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(WORKERS)

$(SETTINGS): dagster.yaml
	@mkdir -p $(DAGSTER_HOME)
	@cp dagster.yaml $@

# The lock is complete, so pip has nothing to resolve (--no-deps).
$(READY): requirements.lock pyproject.toml
	@if ! $(BIN)/python -c 'import pip' >/dev/null 2>&1; then \
		python=; for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
			if $$candidate -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
			then python=$$candidate; break; fi; done; \
		if [ -z "$$python" ]; then \
			echo "No Python 3.11 or newer (with venv) was found. Install one, or run: make PYTHON=/path/to/python3" >&2; \
			exit 1; fi; \
		echo "Making .venv with $$($$python --version)"; \
		$$python -m venv --clear .venv; \
	fi
	@echo "Installing requirements.lock into .venv"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# One lock for all platforms and all Pythons from 3.11 on. No index address is written into it.
lock:
	@rm -rf .venv-lock && $${PYTHON:-python3} -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	@echo 'setuptools>=77' | .venv-lock/bin/uv pip compile pyproject.toml - --all-extras --group dev --universal \
		--python-version 3.11 --generate-hashes --no-annotate --no-header --no-emit-index-url --no-strip-extras --upgrade --quiet \
		--output-file requirements.lock.new
	@{ echo "# Exact versions of pyproject.toml's dependencies, for all platforms and Pythons from 3.11 on: make lock"; \
		cat requirements.lock.new; } > requirements.lock
	@rm -rf .venv-lock requirements.lock.new

clean:
	rm -rf .venv .venv-lock build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find integrations_dagster integrations_dagster_tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
	@echo "Kept: .servers, .dagster_home (runs, and the state of syncs) and warehouse.duckdb. Delete them to start from nothing."
