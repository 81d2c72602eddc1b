# Everything runs in a virtual environment of its own, .venv; the two to know are `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo docs pictures test check bench clean

demo: .venv/demo  ## watch the bundled model on the bundled images, forward and backward, save the run, and write its page
	mkdir -p out
	$(BIN)/hookline watch demo --save out/demo-run --page out/demo.html

docs: .venv/docs  ## the documentation as a site, with pages and pictures of real runs: open out/site/index.html
	$(BIN)/python scripts/pictures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@echo "open out/site/index.html"

pictures: .venv/docs  ## the pictures that are checked in, anew
	$(BIN)/python scripts/pictures.py --into out/pictures
	cp out/pictures/*.png docs/pictures/

test: .venv/dev  ## all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

check: .venv/dev  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/dev  ## every benchmark: ratios beside PyTorch, measured in one interleaved run
	$(BIN)/python -m benchmarks

.venv/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hookline needs Python 3.11 or later; run make with PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/demo: .venv/python pyproject.toml constraints.txt
	$(INSTALL) torch==2.13.0
	$(INSTALL) --editable .
	touch $@

.venv/dev: .venv/demo
	$(INSTALL) --editable '.[dev]'
	touch $@

.venv/docs: .venv/demo
	$(INSTALL) --editable '.[docs]'
	touch $@

clean:
	rm -rf .venv out
