# make demo   install, generate a video with the embedded model, print its path and receipt
# make serve  install, and serve that model: OpenAI's videos API and a page, at an address that it prints
# make install  install all plugins and examples, and what the tests need
# make test   install, then formatting, lint, types and tests: all that CI runs
# make quick  install, then lint and the fast tests: the inner loop
# make dist   install, then build and check an sdist and a wheel of every distribution in dist/
# make docs   install, then the documentation in site/
# make support  install, then write docs/support.md anew from what the suites hold (minutes)
# make tables install, then write the tables of the documents anew from benchmarks/results
# make bench  install, then the benchmarks that this machine can run

# Compiled modules are kept: each of the many processes that tests start would compile ours anew.
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/*/pyproject.toml))
EXAMPLES := $(sort $(wildcard examples/plugins/*/pyproject.toml))
PROMPT ?= a red circle moving left on a white background

.PHONY: demo serve install test quick dist docs support tables bench
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/fv generate "$(PROMPT)" --sheet

serve: $(VENV)/.serve
	$(BIN)/fv serve --model shapes

install: $(VENV)/.installed

test: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy & types=$$!; $(BIN)/pytest -n 3 --dist worksteal; tests=$$?; wait $$types && exit $$tests

quick: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pytest -q -n 3 --dist worksteal -m "not slow and not gpu"

dist: $(VENV)/.installed
	rm -rf dist
	$(BIN)/python tools/dist.py build dist

docs: $(VENV)/.installed
	$(BIN)/sphinx-build -W --keep-going -q docs site

support: $(VENV)/.installed
	$(BIN)/python tools/support.py

tables: $(VENV)/.installed
	$(BIN)/python tools/tables.py

bench: $(VENV)/.installed
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/compile.py

# Not compiled here: Python compiles what is imported, a small part of it.
INSTALL := $(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt

# What `pip install "fastvideo-core[demo]"` installs, and with it what else the service needs; the tests need everything.
FOR_DEMO := . plugins/fv_shapes
FOR_SERVE := $(FOR_DEMO) plugins/fv_serve plugins/fv_sta plugins/fv_teacache
OURS := $(patsubst %/pyproject.toml,%,$(PLUGINS) $(EXAMPLES))

# The environment, and what builds our distributions.
$(VENV)/.begun: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) hatchling editables
	touch $@

$(VENV)/.demo: $(VENV)/.begun pyproject.toml $(PLUGINS)
	$(INSTALL) --no-build-isolation $(addprefix -e ,$(FOR_DEMO))
	touch $@

$(VENV)/.serve: $(VENV)/.begun pyproject.toml $(PLUGINS)
	$(INSTALL) --no-build-isolation $(addprefix -e ,$(FOR_SERVE))
	touch $(VENV)/.demo $@

# Two at a time, as pip has one core busy: the extra `dev` has all that ours need, which pip checks in the end.
$(VENV)/.installed: $(VENV)/.begun pyproject.toml $(PLUGINS) $(EXAMPLES)
	$(INSTALL) --no-build-isolation --no-deps $(addprefix -e ,$(OURS)) & ours=$$!; \
	$(INSTALL) --no-build-isolation -e '.[dev]'; others=$$?; wait $$ours && exit $$others
	$(BIN)/python -m pip check --disable-pip-version-check
	touch $(VENV)/.demo $(VENV)/.serve $@
