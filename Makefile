# Setup and checks. Each environment is created once and again when its requirements change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadscope
CORE := tests --ignore=tests/parity

.PHONY: quickstart test test-all check parity slurm clean

quickstart: $(VENV)/.installed
	$(BIN)/python -m alexnet_jax.main --config=configs/quickstart.py

test: $(VENV)/.installed-test
	$(PYTEST) $(CORE) -m "not slow"

test-all: $(VENV)/.installed-test
	$(PYTEST) $(CORE)

check: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

parity: $(VENV)/.installed-parity
	$(PYTEST) --dist=load tests/parity

slurm: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" launch/slurm_here.sh

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-%: $(VENV)/.installed
	$(BIN)/pip install --constraint constraints.txt --editable ".[$*]"
	touch $@

clean:
	rm -rf $(VENV)
