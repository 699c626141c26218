# make test: install if need be, then lint, types, layers and all tests.   make demo: a hybrid day on this machine.
# Needs Python 3.11+ with venv, make and, for the native parts, a C++ compiler; for mounts, Debian's fuse3. Everything else
# comes from PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PEERS := .venv-peers
# Tests that start daemons, hold cores or measure programmes have the machine to themselves; all others share its cores.
ALONE := $(addprefix tests/,benchmarks cli contract/test_engines.py core estimate/bubbles estimate/profiling native \
  share/daemon share/lab share/node)
SOURCES := src tests benchmarks examples .ci
NATIVE := $(shell find src -name '*.cpp' -o -name '*.hpp')
PIP_QUIET := --quiet --disable-pip-version-check

.PHONY: install demo test test-slow peers clean
.DELETE_ON_ERROR:

install: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$$($(PYTHON) --version 2>&1) found; Python 3.11 or later is needed: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt CMakeLists.txt $(NATIVE)
	$(BIN)/python -m pip install $(PIP_QUIET) -c constraints.txt -e '.[learn,kernels,dev]'
	@$(BIN)/python -c 'import tandem._native' 2>/dev/null \
	  || echo 'Installed without the native parts: no C++ compiler, or the build failed (pip install -v -e . says why).'
	@touch $@

demo: $(INSTALLED)
	@$(BIN)/tandem lab examples/lab.toml

# The tools are quiet unless they find something; pytest's summary comes last.
test: $(INSTALLED)
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "run: $(BIN)/ruff format $(SOURCES)"; exit 1; }
	@$(BIN)/mypy --strict --no-error-summary src
	@mkdir -p build && $(BIN)/lint-imports --no-cache >build/lint-imports.txt 2>&1 || { cat build/lint-imports.txt; exit 1; }
	@rm -f build/failed
	@$(BIN)/python -m pytest -rs --numprocesses=auto --junit-xml=build/junit-shared.xml $(ALONE:%=--ignore=%) || touch build/failed
	@$(BIN)/python -m pytest -rs --junit-xml=build/junit-alone.xml $(ALONE) || touch build/failed
	@! rm build/failed 2>/dev/null

# Proofs that take minutes to hours, run before an issue closes.
test-slow: $(INSTALLED)
	@echo "no slow proofs yet"

# Other people's systems, for side-by-side benchmarks, in an environment of their own.
peers: $(PEERS)/.installed

$(PEERS)/.installed: benchmarks/peers.txt benchmarks/peers_alone.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install $(PIP_QUIET) -r benchmarks/peers.txt
	$(PEERS)/bin/python -m pip install $(PIP_QUIET) --no-deps -r benchmarks/peers_alone.txt
	@touch $@

clean:
	rm -rf build dist .hypothesis .ruff_cache $(INSTALLED) $(PEERS)
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
