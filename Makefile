# Everything runs in a virtual environment of its own; the two targets to know are `make demo` and `make test`.
# Packages are those of constraints.txt. `make test TORCH=2.14.1` runs the tests with another PyTorch, in an
# environment beside the first; `make test-latest` runs them with the newest release of everything.
PYTHON ?= python3
PINNED := $(shell sed -n 's/^torch==//p' constraints.txt)
TORCH ?= $(PINNED)
VENV := $(if $(filter $(PINNED),$(TORCH)),.venv,.venv-torch-$(TORCH))
BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(VENV)/constraints.txt

.PHONY: demo docs pictures test test-fast test-latest check bench lock clean

demo: $(VENV)/demo  ## watch the bundled model on the bundled images, forward and backward, save the run, and write its page
	mkdir -p out
	$(BIN)/hookline watch demo --save out/demo-run --page out/demo.html

docs: $(VENV)/docs  ## the documentation as a site, with pages and pictures of real runs: open out/site/index.html
	$(BIN)/python scripts/pictures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "open out/site/index.html"

pictures: $(VENV)/docs  ## the pictures that are checked in, anew
	$(BIN)/python scripts/pictures.py --into out/pictures
	cp out/pictures/*.png docs/pictures/

test: $(VENV)/dev  ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-fast: $(VENV)/dev  ## the tests that take no graph, no browser and no long time: under three minutes
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not graph and not browser and not slow"

test-latest:  ## all tests with the newest release of everything, in an environment made anew
	rm -rf .venv-torch-latest
	$(MAKE) test TORCH=latest

check: $(VENV)/dev  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/dev  ## every benchmark: ratios to PyTorch, measured in one interleaved run
	$(BIN)/python -m benchmarks

lock:  ## the newest release of every package but PyTorch, pinned in constraints.txt
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet torch==$(PINNED)
	.venv-lock/bin/python -m pip install --quiet torch==$(PINNED) --editable '.[dev,docs]'
	sed -n '1p' constraints.txt > .venv-lock/constraints.txt
	.venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' >> .venv-lock/constraints.txt
	cp .venv-lock/constraints.txt constraints.txt
	rm -rf .venv-lock

$(VENV)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hookline needs Python 3.11 or later; run make with PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	touch $@

# The pins: all of them; without PyTorch's for another PyTorch; none for the newest of everything.
$(VENV)/constraints.txt: $(VENV)/python constraints.txt
ifeq ($(TORCH),latest)
	: > $@
else
	sed 's/^torch==.*/torch==$(TORCH)/' constraints.txt > $@
endif

$(VENV)/demo: $(VENV)/constraints.txt pyproject.toml
	$(INSTALL) torch
	$(INSTALL) --editable .
	touch $@

$(VENV)/dev: $(VENV)/demo
	$(INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/docs: $(VENV)/demo
	$(INSTALL) --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv .venv-* out
