# Two commands: make repro, make test. Each makes the virtual environment first where it is missing.

PYTHON ?= python3
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: repro test check format lock setup

repro: .venv/ready
	python -m stages.repro --jobs $(JOBS)
	@python -m stages.show --numbers metrics/comparison.csv --pictures plots/pictures

test: .venv/ready
	python -m pytest

check: .venv/ready
	ruff check .
	ruff format --check .
	mypy

format: .venv/ready
	ruff format .
	ruff check --fix .

setup: .venv/ready

# The environment is ready when every step before has succeeded.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	python -m pip install --requirement requirements.txt
	python -m pip install --no-deps --no-build-isolation --editable .
	@touch $@

# Exact versions for every supported Python and platform, from the ranges in pyproject.toml.
lock: .venv/ready
	python -m pip install --quiet uv
	uv pip compile pyproject.toml --group dev --universal --python-version 3.10 --quiet \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.txt
