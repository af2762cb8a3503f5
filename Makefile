# make demo   install, generate a video with the embedded model, print its path and receipt
# make test   install, then formatting, lint, types and tests: all that CI runs
# make quick  install, then lint and the fast tests: the inner loop
# make dist   install, then build and check an sdist and a wheel of every distribution in dist/
# make docs   install, then the documentation in site/
# make support  install, then write docs/support.md anew from what the suites hold (minutes)
# make tables install, then write the tables of the documents anew from benchmarks/results
# make bench  install, then the benchmarks that this machine can run

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
EXAMPLES := $(sort $(wildcard examples/plugins/*/pyproject.toml))
PROMPT ?= a red circle moving left on a white background

.PHONY: demo test quick dist docs support tables bench
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/fv generate "$(PROMPT)" --sheet

test: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist worksteal

quick: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pytest -q -n 2 --dist worksteal -m "not slow and not gpu"

dist: $(VENV)/.installed
	rm -rf dist
	$(BIN)/python tools/dist.py build dist

docs: $(VENV)/.installed
	$(BIN)/mkdocs build --strict

support: $(VENV)/.installed
	$(BIN)/python tools/support.py

tables: $(VENV)/.installed
	$(BIN)/python tools/tables.py

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/compile.py

$(VENV)/.installed: constraints.txt pyproject.toml $(PLUGINS) $(EXAMPLES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check hatchling editables
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation -c constraints.txt \
		-e ".[dev]" $(foreach plugin,$(PLUGINS) $(EXAMPLES),-e $(dir $(plugin)))
	touch $@
