# Every target sets up what it needs: `make help` lists them.
# PYTHON=python3.12   the Python that makes the virtual environment (3.11 or newer)
# ARGS="--seed 1"     handed to `bv run`
# JOBS=4              tests that run side by side (each with one thread)
# COLD="00 01 05"     notebooks that `make check` runs from nothing
# CLASS=folder        where `make course` makes the folder of a class
# PIP_ARGS="..."      handed to `pip install`

PYTHON ?= python3
PROFILE ?= mini
ARGS ?=
PIP_ARGS ?=
JOBS ?= 2
COLD ?= 00

VENV := .venv
BIN := $(VENV)/bin
PYTEST = $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder
STAMP := $(VENV)/.installed
LINT := $(VENV)/.installed-lint
WORKFLOW := $(VENV)/.installed-workflow
BOOK := $(VENV)/.installed-book
COURSE := $(VENV)/.installed-course
CLASS ?= course/_build/class
BROWSER := $(VENV)/.installed-browser

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup reproduce test check lint book browse drive course course-archive bench lab clean-venv

help:
	@echo "make reproduce   run the notebooks in order (profile $(PROFILE)) and report: figures, tables, claims"
	@echo "make test        run the quick tests"
	@echo "make check       run the slow tests, then notebooks $(COLD) cold on mini, compared with the committed values"
	@echo "make lint        format, rules, layers and types: ruff, import-linter, pyright"
	@echo "make book        the study as a site of pages, in book/_build/html: needs no network once it is installed"
	@echo "make browse      open that site in a headless Chromium, and look for errors"
	@echo "make drive       run notebooks 01 and 10 in a real JupyterLab, and move a slider there"
	@echo "make course      a class: five assignments for students, their solutions, models, grading (course/README.md)"
	@echo "make course-archive  what students and graders install without a network, in one archive"
	@echo "make bench       time training steps and trigger optimisation against what they are measured by"
	@echo "make lab         open the notebooks in JupyterLab"
	@echo "make setup       only make the virtual environment $(VENV)"
	@echo "make clean-venv  remove $(VENV); runs/, store/ and data/ stay"
	@echo "Variables: PYTHON=$(PYTHON) PROFILE=$(PROFILE) ARGS=\"--seed 1\" JOBS=$(JOBS) PIP_ARGS=\"...\""

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "bvlib needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) -V 2>&1`: name one, as in make PYTHON=python3.12"; \
	  exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: python3-venv)"; \
	  exit 1; }
	@echo "Setting up $(VENV), once: several minutes, most of them for torch"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[test]'
	@touch $@

$(WORKFLOW): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[workflow]'
	@touch $@

reproduce: $(WORKFLOW)
	$(BIN)/bv run --profile $(PROFILE) $(ARGS)
	$(BIN)/bv report --profile $(PROFILE)
	@echo "Done: executed notebooks, figures and tables are in $${BVLIB_RUNS:-runs}/$(PROFILE)/"

test: $(STAMP)
	$(PYTEST) -m "not slow and not gpu"
	@echo "Done: quick tests passed (the slow ones: make check)"

check: $(WORKFLOW) $(COURSE)
	$(PYTEST) -m "slow and not gpu" --durations=20
	@dir=`mktemp -d "$${TMPDIR:-/tmp}/bvlib-check.XXXXXX"` && \
	echo "A cold mini run of $(COLD), in $$dir" && \
	export BVLIB_RUNS="$$dir/runs" BVLIB_STORE="$$dir/store" && \
	{ $(BIN)/bv run --profile mini $(COLD) && $(BIN)/bv report --profile mini --check $(COLD) || { \
	  echo "make check failed: see $$dir"; exit 1; }; } && \
	rm -rf "$$dir/store" && \
	echo "Done: slow tests passed and the cold run agrees with the committed values; its notebooks are in $$dir/runs/mini/"

$(LINT): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[lint]'
	@touch $@

lint: $(LINT)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache
	$(BIN)/basedpyright
	@echo "Done: formatted, no rule broken, layers kept, types agree"

$(BOOK): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[book]'
	@touch $@

book: $(BOOK)
	rm -rf book/_build
	$(BIN)/python -m sphinx -q -W --keep-going -b html book book/_build/html
	$(BIN)/python book/check.py book/_build/html
	@echo "Done: open book/_build/html/index.html"

$(BROWSER): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[browser]'
	@touch $@

browse: book $(BROWSER)
	$(BIN)/python book/browse.py book/_build/html book/_build/shots

$(COURSE): $(STAMP)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) -c constraints.txt -e '.[course]'
	@touch $@

course: $(COURSE)
	$(BIN)/python course/build.py $(CLASS) --profile $(PROFILE)

course-archive: course
	$(BIN)/python course/archive.py $(CLASS) $(ARGS)

drive: $(BROWSER)
	$(BIN)/python book/drive_lab.py book/_build/shots

bench: $(STAMP)
	$(BIN)/python benchmarks/beside.py
	$(BIN)/python benchmarks/backdoored_step.py
	$(BIN)/python benchmarks/universal_trigger.py

lab: $(STAMP)
	$(BIN)/jupyter lab notebooks

clean-venv:
	rm -rf $(VENV)
