# `make demo` and `make test` need nothing but Python 3.11 or newer, pip and make; the first call fills .venv.

PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Compiled bytecode makes every process that a test or the demo starts quicker.
RUN := env -u PYTHONDONTWRITEBYTECODE
SEED ?= 0
SECONDS ?= 60
COUNT ?= 60
JOBS ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-long lint docs swarm prove planted bench clean

help:
	@echo 'make demo    train on a fleet that loses a slice and gets it back'
	@echo 'make test    all checks and tests but the long ones'
	@echo 'make test-long  tests of KubeRay, Slurm, IPv6 and tokens on nodes of one machine: some minutes'
	@echo 'make lint    the checks alone'
	@echo 'make docs    the documentation as a site in build/site, with an API reference; warnings are errors'
	@echo 'make swarm   random schedules on big simulated fleets for a minute: make swarm SEED=7 SECONDS=600'
	@echo 'make bench   the measurements, one after the other'
	@echo 'make prove   every state that small fleets reach, by the hour'
	@echo 'make planted plant single faults in a copy, and count those that the tests find: make planted SEED=7 COUNT=90'
	@echo 'make clean   remove all that make made'

demo: $(STAMP)
	@$(RUN) $(BIN)/sliceform demo

# The tests go last: the closing line is their summary. Those that start Ray run one after the other, the rest beside them.
test: lint
	@$(RUN) $(BIN)/pytest -n 2 --dist loadgroup -m 'not bench and not long' --cov --cov-report=term tests

test-long: $(STAMP)
	@$(RUN) $(BIN)/pytest -m 'long and not bench' tests

lint: $(STAMP)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(RUN) $(BIN)/lint-imports
	@$(RUN) $(BIN)/mypy
	@$(BIN)/vulture

docs: $(STAMP)
	@$(RUN) $(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet docs build/site

swarm: $(STAMP)
	@$(RUN) $(BIN)/python -m tests.simulation.swarm --seed $(SEED) --seconds $(SECONDS)

bench: $(STAMP)
	@set -e; for bench in tests/bench/[!_]*.py; do echo "== $$bench"; $(RUN) $(BIN)/python "$$bench"; done

prove: $(STAMP)
	@$(RUN) $(BIN)/python -m tests.simulation.explorer

planted: $(STAMP)
	@$(RUN) $(BIN)/python -m tests.planted --seed $(SEED) --count $(COUNT) --jobs $(JOBS)

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'sliceform needs Python 3.11 or newer: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -u PIP_NO_COMPILE $(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[demo,dev,docs]'
	@mkdir -p $(VENV)/typed/sliceform
	@ln -sfn ../../../controller $(VENV)/typed/sliceform/controller
	@ln -sfn ../../../states $(VENV)/typed/sliceform/states
	@touch $@
