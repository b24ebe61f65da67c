# Two commands matter: `make demo` and `make test`. Both make .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint fast slow wheel clean

demo: .venv/core
	$(BIN)/agentmtl demo

test: .venv/dev lint fast

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: .venv/dev
	$(BIN)/pytest -n 2 -m "not slow"

slow: .venv/dev
	$(BIN)/pytest -n 2 -m slow

wheel: .venv/dev
	$(BIN)/python -m build --wheel --outdir dist

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "agentmtl needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/core: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing agentmtl into .venv (a few minutes the first time)"
	$(PIP) --editable '.[openvino]'
	@touch $@

.venv/dev: .venv/core
	@echo "Installing the test tools into .venv"
	$(PIP) --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
